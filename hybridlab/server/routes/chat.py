"""OpenAI's chat completions: a question about an audio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from hybridlab.server.errors import ApiError, bad_request
from hybridlab.server.jobs import InferenceJob
from hybridlab.server.routes.common import (
    TIMING,
    EngineDep,
    add_timing,
    question_params,
    result_of,
)
from hybridlab.server.schemas.base import INFERENCE_ERRORS
from hybridlab.server.schemas.completions import ChunkWriter, Completion, completion
from hybridlab.server.schemas.events import CHUNK_STREAM
from hybridlab.server.schemas.requests import ChatBody
from hybridlab.server.streaming import cancel_on_disconnect, event, event_stream, new_id

router = APIRouter(prefix="/v1/chat")
RESPONSES = {
    200: {
        "content": CHUNK_STREAM,
        "headers": TIMING,
        "description": "an answer; with stream, chat.completion.chunk events, an error among them "
        "where one comes late, and [DONE]",
    },
    **INFERENCE_ERRORS,
}


@router.post("/completions", response_model=Completion, responses=RESPONSES)
async def completions(request: Request, engine: EngineDep, body: ChatBody, sent: Response) -> Any:
    upload, question = body.read()
    role = engine.role_of(body.model)
    if role != "llm":
        raise bad_request(f"{body.model} answers no questions; name the LLM of /v1/models")
    audio = await cancel_on_disconnect(request, engine.decode(upload, role, "answer"))
    limit = engine.answer_tokens(body.most_tokens)
    (job,) = engine.submit(question_params(audio, question, limit, stream=bool(body.stream)))
    name = new_id("chatcmpl")
    if body.stream:
        model = engine.schedulers[role].model
        chunks = ChunkWriter(name=name, model=model, include_usage=body.include_usage)
        return event_stream(_chunk_events(chunks, job))
    result = await result_of(request, job)
    add_timing(sent, result)
    return completion(name, result)


async def _chunk_events(chunks: ChunkWriter, job: InferenceJob) -> AsyncIterator[str]:
    """The text as it is decoded."""
    try:
        yield chunks.start()
        async for piece in job.pieces():
            yield chunks.text(piece)
        yield chunks.end(await job.future)
    except ApiError as error:
        yield event(error.body())
    finally:  # the client may have gone
        job.future.cancel()
