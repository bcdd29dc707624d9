"""What the routes depend on, and how they wait for a result."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Response, UploadFile
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server import errors
from hybridlab.server.engine import Engine
from hybridlab.server.jobs import DecodedAudio, InferenceJob, InferenceParams, InferenceResult
from hybridlab.server.streaming import cancel_on_disconnect

#: Of responses to requests that a model served.
TIMING = {
    "Server-Timing": {
        "description": "wait for the model and its work, in ms (W3C Server Timing)",
        "schema": {"type": "string"},
    }
}


async def get_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


EngineDep = Annotated[Engine, Depends(get_engine)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def require_token(token: str) -> Callable[[Credentials], Awaitable[None]]:
    """A dependency that refuses a request without this bearer token."""

    async def verify(credentials: Credentials) -> None:
        given = credentials.credentials if credentials is not None else ""
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise errors.invalid_api_key()

    return verify


async def read_upload(file: UploadFile) -> bytes:
    """Its name is not looked at."""
    try:
        return await file.read()
    finally:
        await file.close()


async def result_of(request: Request, job: InferenceJob) -> InferenceResult:
    """What came of a job, which is withdrawn when its client goes away."""
    try:
        return await cancel_on_disconnect(request, job.future)
    finally:
        job.future.cancel()


def add_timing(response: Response, result: InferenceResult) -> None:
    """The wait in the queue and the work, in ms; `upstream`: all that another server took."""
    seconds = {"wait": result.queue_time_s, "work": result.work_s, "upstream": result.upstream_s}
    response.headers["Server-Timing"] = ", ".join(
        f"{name};dur={1000 * value:.3f}" for name, value in seconds.items() if value is not None
    )


def question_params(
    audio: DecodedAudio, question: str, max_new_tokens: int, *, stream: bool
) -> InferenceParams:
    return InferenceParams(
        role="llm",
        kind="answer",
        audio=audio,
        question=question,
        options=TranscribeOptions(max_new_tokens=max_new_tokens),
        stream=stream,
    )
