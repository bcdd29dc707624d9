"""The routes: OpenAI's, the pair's own, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, File, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from hybridlab.server import answers, openapi, wire
from hybridlab.server.bodies import ChatBody, HybridForm, TranscriptionForm, read_chat
from hybridlab.server.engine import Wish
from hybridlab.server.front import add_page
from hybridlab.server.http import (
    Part,
    bytes_of,
    events,
    metrics_page,
    new_app,
    readiness,
    under_way,
    unless_gone,
    whole,
)
from hybridlab.server.jobs import Job, Said, Sound
from hybridlab.server.refusals import RefusalError, bad_request
from hybridlab.server.service import Service


def make_app(service: Service, *, secured: bool = False) -> FastAPI:
    """All routes over one service, whose life is the caller's. `secured`: behind a bearer token."""
    app = new_app("hybridlab", secured=secured, queue=service.settings.queue)
    app.state.service = service
    _openai_routes(app, service)
    _hybrid_route(app, service)
    _own_routes(app, service)
    add_page(app)
    return app


# ----------------------------------------------------------------------------------- OpenAI's


def _openai_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=openapi.MODELS)
    async def models() -> Response:
        return JSONResponse(wire.models(service.model_ids(), service.created))

    @app.post("/v1/audio/transcriptions", responses=openapi.TRANSCRIPTION)
    async def transcriptions(
        request: Request, form: Annotated[TranscriptionForm, File()]
    ) -> Response:
        if form.prompt:
            raise bad_request("'prompt' is not supported here; leave it out")
        kind = wire.check_format(form.response_format)
        spoken = service.language(form.language)
        tenant = service.tenant_of(form.model)
        service.check(tenant, "transcription")
        sound = await unless_gone(request, service.decode(await bytes_of(form.file)))
        wish = Wish(
            tenant=tenant,
            kind="transcription",
            sound=sound,
            language=spoken,
            max_new_tokens=form.max_tokens,
        )
        (job,) = service.submit(wish)
        said = await _answered(request, job)
        return _timed(_transcript(kind, said, sound, spoken), said)

    @app.post("/v1/chat/completions", responses=openapi.COMPLETION)
    async def completions(request: Request, body: ChatBody) -> Response:
        chat = read_chat(body)
        tenant = service.tenant_of(chat.model)
        if tenant != "voxtral":
            raise bad_request(f"{chat.model} answers no questions; name a Voxtral (/v1/models)")
        service.check(tenant, "answer")
        sound = await unless_gone(request, service.decode(chat.audio))
        most = service.answer_tokens(chat.max_new_tokens)
        (job,) = service.submit(_question(sound, chat.question, most, stream=chat.stream))
        name = wire.new_id("chatcmpl")
        if chat.stream:
            model = service.the_engine().lanes[tenant].model
            chunks = answers.Chunks(name=name, model=model, include_usage=chat.include_usage)
            return events(_chat_events(chunks, job))
        said = await _answered(request, job)
        return _timed(JSONResponse(answers.completion(name, said)), said)


def _question(sound: Sound, question: str, most: int, *, stream: bool) -> Wish:
    return Wish(
        tenant="voxtral",
        kind="answer",
        sound=sound,
        question=question,
        max_new_tokens=most,
        stream=stream,
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
    return JSONResponse(wire.plain(said, sound))


async def _chat_events(chunks: answers.Chunks, job: Job) -> AsyncIterator[str]:
    """The words as they are decoded."""
    try:
        yield chunks.role()
        async for piece in job.words():
            yield chunks.words(piece)
        yield chunks.end(await job.future)
    except RefusalError as error:
        yield wire.event(error.as_dict())
    finally:  # the client may have gone
        job.future.cancel()


# --------------------------------------------------------------------------------- the pair's


def _hybrid_route(app: FastAPI, service: Service) -> None:
    @app.post("/v1/hybrid", responses=openapi.HYBRID)
    async def hybrid(request: Request, form: Annotated[HybridForm, File()]) -> Response:
        """A transcript and an answer to each `question`; streamed, the transcript comes first, and
        before each answer its words as they come (`delta`)."""
        asked = form.questions
        transcriber = service.for_hybrid()
        spoken = service.language(form.language)
        service.check(transcriber, "transcription")
        sound = await unless_gone(request, service.decode(await bytes_of(form.file)))
        most = service.answer_tokens(form.max_tokens)
        first, *rest = service.submit(
            Wish(tenant=transcriber, kind="transcription", sound=sound, language=spoken),
            *(_question(sound, text, most, stream=form.stream) for text in asked),
        )
        parts = _parts(first, rest, asked, sound)
        if form.stream:
            return events(_hybrid_events(parts, [first, *rest]))
        return JSONResponse(await _whole(request, parts, [first, *rest]))


async def _parts(
    transcript: Job, questions: list[Job], asked: list[str], sound: Sound
) -> AsyncIterator[Part]:
    """The parts of a hybrid response, each as soon as it is there, the transcript first."""
    yield "transcript", wire.transcript_part(await transcript.future, sound)
    both = enumerate(zip(asked, questions, strict=True))
    async with under_way(*(_answer(n, text, job) for n, (text, job) in both)) as parts:
        async for part in parts:
            yield part


async def _answer(index: int, question: str, job: Job) -> AsyncIterator[Part]:
    if job.growing is not None:
        async for piece in job.words():
            yield "delta", answers.delta_part(index, piece)
    yield "answer", answers.answer_part(index, question, await job.future)


async def _hybrid_events(parts: AsyncIterator[Part], jobs: list[Job]) -> AsyncIterator[str]:
    try:
        async for name, part in parts:
            yield wire.event(part, name)
        yield wire.event({"id": wire.new_id("hybrid")}, "done")
    except RefusalError as error:
        yield wire.failed(error)
    finally:
        _cancel(jobs)


async def _whole(request: Request, parts: AsyncIterator[Part], jobs: list[Job]) -> dict[str, Any]:
    try:
        return await unless_gone(request, whole(parts))
    finally:
        _cancel(jobs)


# --------------------------------------------------------------------------- health and metrics


def _own_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", responses=openapi.LIVE)
    async def live() -> Response:
        broken = service.broken
        return JSONResponse({"live": not broken, "reason": broken}, 503 if broken else 200)

    @app.get("/health/ready", responses=openapi.READY)
    async def ready() -> Response:
        return readiness(service.not_ready)

    @app.get("/metrics", responses=openapi.METRICS, response_class=PlainTextResponse)
    async def metrics() -> Response:
        return metrics_page(await asyncio.to_thread(service.metrics.text))


# ------------------------------------------------------------------------------------ in common


async def _answered(request: Request, job: Job) -> Said:
    """What came of a job, which is withdrawn when its client goes away."""
    try:
        return await unless_gone(request, job.future)
    finally:
        job.future.cancel()


def _cancel(jobs: list[Job]) -> None:
    for job in jobs:
        job.future.cancel()
