"""The routes: OpenAI's, the pair's own, health and metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from hybridlab.serve import wire
from hybridlab.serve.engine import Wish
from hybridlab.serve.front import add_page
from hybridlab.serve.jobs import Job, Said, Sound
from hybridlab.serve.refusals import RefusalError, bad_request
from hybridlab.serve.service import Service

Answer = TypeVar("Answer")
Upload = Annotated[UploadFile, File()]


def make_app(service: Service) -> FastAPI:
    """All routes over one service, whose life is the caller's."""
    app = FastAPI(title="hybridlab", docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    _openai_routes(app, service)
    _hybrid_route(app, service)
    _own_routes(app, service)
    add_page(app)
    return app


# ----------------------------------------------------------------------------------- OpenAI's


def _openai_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return wire.models(service.model_ids(), service.created)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(
        request: Request,
        file: Upload,
        model: Annotated[str, Form()],
        language: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form()] = "json",
        prompt: Annotated[str, Form()] = "",
        max_tokens: Annotated[int | None, Form(ge=1)] = None,
    ) -> Response:
        if prompt:
            raise bad_request("'prompt' is not supported here; leave it out")
        kind = wire.check_format(response_format)
        spoken = service.language(language)
        tenant = service.tenant_of(model)
        service.check(tenant, "transcription")
        sound = await _unless_gone(request, service.decode(await _bytes_of(file)))
        wish = Wish(
            tenant=tenant,
            kind="transcription",
            sound=sound,
            language=spoken,
            max_new_tokens=max_tokens,
        )
        (job,) = service.submit(wish)
        said = await _answered(request, job)
        return _timed(_transcript(kind, said, sound, spoken), said)

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        chat = wire.read_chat(await _json_of(request))
        tenant = service.tenant_of(chat.model)
        if tenant != "voxtral":
            raise bad_request(f"{chat.model} answers no questions; name a Voxtral (/v1/models)")
        service.check(tenant, "answer")
        sound = await _unless_gone(request, service.decode(chat.audio))
        most = service.answer_tokens(chat.max_new_tokens)
        (job,) = service.submit(_question(sound, chat.question, most))
        name = wire.new_id("chatcmpl")
        if chat.stream:
            return _events(_chat_events(name, job, most))
        said = await _answered(request, job)
        return _timed(JSONResponse(wire.completion(name, said, most)), said)


def _question(sound: Sound, question: str, most: int) -> Wish:
    return Wish(
        tenant="voxtral", kind="answer", sound=sound, question=question, max_new_tokens=most
    )


def _timed(response: Response, said: Said) -> Response:
    response.headers["Server-Timing"] = wire.server_timing(said)
    return response


def _transcript(kind: str, said: Said, sound: Sound, language: str) -> Response:
    segments = wire.segments_of(said, sound)
    match kind:
        case "text":
            return PlainTextResponse(said.text + "\n")
        case "srt":
            return PlainTextResponse(wire.srt(segments), media_type="application/x-subrip")
        case "vtt":
            return PlainTextResponse(wire.vtt(segments), media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(wire.verbose(said, sound, language))
    return JSONResponse({"text": said.text, **wire.served_by(said)})


async def _chat_events(name: str, job: Job, most: int) -> AsyncIterator[str]:
    try:
        for chunk in wire.chunks(name, await job.future, most):
            yield chunk
    except RefusalError as error:
        yield f"data: {json.dumps(error.as_dict())}\n\n"
    finally:  # the client may have gone
        job.future.cancel()


# --------------------------------------------------------------------------------- the pair's


def _hybrid_route(app: FastAPI, service: Service) -> None:
    @app.post("/v1/hybrid")
    async def hybrid(
        request: Request,
        file: Upload,
        question: Annotated[list[str], Form()],
        language: Annotated[str | None, Form()] = None,
        max_tokens: Annotated[int | None, Form(ge=1)] = None,
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        """A transcript and an answer to each `question`; streamed, the transcript comes first."""
        asked = [text.strip() for text in question]
        if not all(asked):
            raise bad_request("'question' is empty; ask something about the audio")
        transcriber = service.for_hybrid()
        spoken = service.language(language)
        service.check(transcriber, "transcription")
        sound = await _unless_gone(request, service.decode(await _bytes_of(file)))
        most = service.answer_tokens(max_tokens)
        first, *rest = service.submit(
            Wish(tenant=transcriber, kind="transcription", sound=sound, language=spoken),
            *(_question(sound, text, most) for text in asked),
        )
        parts = _parts(first, rest, asked, sound, most)
        if stream:
            return _events(_hybrid_events(parts, [first, *rest]))
        return JSONResponse(await _whole(request, parts, [first, *rest]))


async def _parts(
    transcript: Job, answers: list[Job], asked: list[str], sound: Sound, most: int
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The parts of a hybrid response, each as soon as it is there, the transcript first."""
    yield "transcript", wire.transcript_part(await transcript.future, sound)
    for index, (job, question) in enumerate(zip(answers, asked, strict=True)):
        yield "answer", wire.answer_part(index, question, await job.future, most)


async def _hybrid_events(
    parts: AsyncIterator[tuple[str, dict[str, Any]]], jobs: list[Job]
) -> AsyncIterator[str]:
    try:
        async for name, part in parts:
            yield wire.event(part, name)
        yield wire.event({"id": wire.new_id("hybrid")}, "done")
    except RefusalError as error:
        yield wire.failed(error)
    finally:
        _cancel(jobs)


async def _whole(
    request: Request, parts: AsyncIterator[tuple[str, dict[str, Any]]], jobs: list[Job]
) -> dict[str, Any]:
    async def collect() -> dict[str, Any]:
        found: dict[str, Any] = {"id": wire.new_id("hybrid"), "answers": []}
        async for name, part in parts:
            if name == "transcript":
                found["transcript"] = part
            else:
                found["answers"].append(part)
        return found

    try:
        return await _unless_gone(request, collect())
    finally:
        _cancel(jobs)


# --------------------------------------------------------------------------- health and metrics


def _own_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health/live")
    async def live() -> Response:
        broken = service.broken
        return JSONResponse({"live": not broken, "reason": broken}, 503 if broken else 200)

    @app.get("/health/ready")
    async def ready() -> Response:
        reason = service.not_ready
        return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


# ------------------------------------------------------------------------------------ in common


async def _bytes_of(file: UploadFile) -> bytes:
    """The upload; its name is not looked at."""
    try:
        return await file.read()
    finally:
        await file.close()


async def _json_of(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        raise bad_request("the body is not JSON") from None


async def _answered(request: Request, job: Job) -> Said:
    """What came of a job, which is withdrawn when its client goes away."""
    try:
        return await _unless_gone(request, job.future)
    finally:
        job.future.cancel()


async def _unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
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


def _cancel(jobs: list[Job]) -> None:
    for job in jobs:
        job.future.cancel()


def _events(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


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
