"""What the routes of a server and of a gateway have in common: bodies, vanished clients, events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, File, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from hybridlab.serve import wire
from hybridlab.serve.refusals import RefusalError, bad_request

Answer = TypeVar("Answer")
Upload = Annotated[UploadFile, File()]
#: A part of a hybrid response: 'transcript' or 'answer', and what it says.
Part = tuple[str, dict[str, Any]]


def new_app(title: str) -> FastAPI:
    """Without routes; refusals and malformed requests are one line each."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def questions_of(given: list[str]) -> list[str]:
    asked = [text.strip() for text in given]
    if not all(asked):
        raise bad_request("'question' is empty; ask something about the audio")
    return asked


async def whole(parts: AsyncIterator[Part]) -> dict[str, Any]:
    """A hybrid response that is not streamed."""
    found: dict[str, Any] = {"id": wire.new_id("hybrid"), "answers": []}
    async for name, part in parts:
        if name == "transcript":
            found["transcript"] = part
        else:
            found["answers"].append(part)
    return found


def metrics_page(text: bytes) -> Response:
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def readiness(reason: str) -> Response:
    return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)


async def bytes_of(file: UploadFile) -> bytes:
    """The upload; its name is not looked at."""
    try:
        return await file.read()
    finally:
        await file.close()


async def json_of(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):  # the latter: nested thousands deep
        raise bad_request("the body is not JSON") from None


async def unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
    """The result of `work`; when the client goes away first, work is cancelled and so is this."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            with suppress(asyncio.CancelledError):
                await doing
            raise RefusalError(499, "gone", "the client went away")
        return doing.result()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def events(pieces: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    after = error.retry_after_s
    headers = {} if after is None else {"Retry-After": str(after)}
    return JSONResponse(error.as_dict(), error.status, headers=headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """FastAPI's findings as one line, without the values that were sent."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])
    return await _refused(_, bad_request(f"{where or 'body'}: {problem['msg']}"))
