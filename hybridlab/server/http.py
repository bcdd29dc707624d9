"""What the routes of a server and of a gateway have in common: bodies, vanished clients, events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import FastAPI, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from hybridlab.server import openapi, wire
from hybridlab.server.bodies import HybridForm
from hybridlab.server.refusals import RefusalError, bad_request, fault

Answer = TypeVar("Answer")
#: A part of a hybrid response: 'transcript', 'delta' (more of an answer) or 'answer', and what it
#: says.
Part = tuple[str, dict[str, Any]]
#: Fields of a form beside its one file: a hybrid request may ask many questions.
MOST_FIELDS = 100


def new_app(title: str, *, secured: bool, queue: int) -> FastAPI:
    """Without routes; whatever is refused, and a fault too, is one line in the same shape.
    `secured`: a bearer token is asked for; `queue`: the questions that may wait."""
    # 0: a file stays in memory, which the gate bounds; audio touches no disk, and a full one harms
    # no request
    MultiPartParser.spool_max_size = 0
    app = FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        form_limits={"max_files": 1, "max_fields": MOST_FIELDS},
    )
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(HTTPException, _unusual)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    most = min(queue, MOST_FIELDS - len(HybridForm.model_fields))
    openapi.describe(app, secured=secured, most_questions=most)
    return app


async def whole(parts: AsyncIterator[Part]) -> dict[str, Any]:
    """A hybrid response that is not streamed."""
    found: dict[str, Any] = {"id": wire.new_id("hybrid"), "answers": []}
    async for name, part in parts:
        if name == "transcript":
            found["transcript"] = part
        else:
            found["answers"].append(part)
    found["answers"].sort(key=lambda part: part["index"])
    return found


@asynccontextmanager
async def under_way(*sources: AsyncIterator[Part]) -> AsyncIterator[AsyncIterator[Part]]:
    """All sources at work from now on, and their parts as they come; a fault of one is raised when
    the others are done. Leaving ends them."""
    parts: asyncio.Queue[Part | None] = asyncio.Queue()

    async def pump(source: AsyncIterator[Part]) -> None:
        try:
            async for part in source:
                parts.put_nowait(part)
        finally:
            parts.put_nowait(None)

    async def read() -> AsyncIterator[Part]:
        for _ in tasks:
            while (part := await parts.get()) is not None:
                yield part
        for task in tasks:
            await task

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        yield read()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
    except (ValueError, RecursionError):  # the latter where it is nested a thousand times
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


async def _unusual(_: Request, error: Exception) -> Response:
    """An unknown route or method, a form that cannot be read: in the shape of the others."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    told = RefusalError(error.status_code, code, str(error.detail))
    return JSONResponse(told.as_dict(), told.status, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """The first finding as one line, without the values that were sent."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])
    if problem["loc"] == ("body",) or problem["type"] == "json_invalid":
        return await _refused(_, bad_request("the body must be an object as application/json"))
    why = problem["msg"].removeprefix("Value error, ")
    return await _refused(_, bad_request(f"{where}: {why}"))


async def _failed(request: Request, _: Exception) -> Response:
    """The error itself goes on to the server's log."""
    return await _refused(request, fault("the server"))
