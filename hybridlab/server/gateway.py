"""The routes of a gateway: a server with Whisper and one with Voxtral, seen as one server.

Requests are passed on as they came, to the server whose model they name. `/v1/hybrid` asks both at
once and answers in the shape and the order of a server that has both.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager
from typing import Annotated

from fastapi import FastAPI, File, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from hybridlab import catalog
from hybridlab.server import openapi, wire
from hybridlab.server.asking import COMPLETIONS, TRANSCRIPTIONS, Question, hybrid_parts
from hybridlab.server.bodies import ChatBody, HybridForm, TranscriptionForm
from hybridlab.server.http import (
    Part,
    bytes_of,
    events,
    json_of,
    metrics_page,
    new_app,
    readiness,
    unless_gone,
    whole,
)
from hybridlab.server.metrics import Metrics
from hybridlab.server.refusals import (
    RefusalError,
    bad_request,
    not_ready,
    queue_full,
    too_many_questions,
)
from hybridlab.server.security import Receive, Scope, Send
from hybridlab.server.upstream import Upstream

#: Of an upstream's headers these are its client's too.
KEPT = ("content-type", "cache-control", "x-accel-buffering")


class Gateway:
    """Two upstreams and how many requests may be under way to them."""

    def __init__(self, whisper: Upstream, voxtral: Upstream, *, queue: int) -> None:
        self.whisper = whisper
        self.voxtral = voxtral
        self.queue = queue
        self.under_way = 0
        self.stopping = False
        self._idle = asyncio.Event()
        self.metrics = Metrics()
        for side in (whisper, voxtral):
            side.on_clocked = self.metrics.phase_done

    async def close(self) -> None:
        await asyncio.gather(self.whisper.close(), self.voxtral.close())

    def of_model(self, model: str) -> Upstream:
        """Whose name this is; that server itself says whether it has it."""
        name = model.lower()
        if "whisper" in name or name in catalog.WHISPERS:
            return self.whisper
        if "voxtral" in name or name in catalog.VOXTRALS:
            return self.voxtral
        raise RefusalError(
            404, "model_not_found", f"the model {model[:60]!r} is not served; see /v1/models"
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests under way; 429 where all are taken."""
        if self.stopping:
            raise not_ready("the gateway is stopping")
        if self.under_way >= self.queue:
            raise queue_full(1)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            if not self.under_way:
                self._idle.set()

    async def drain(self) -> None:
        """Take nothing new; returns when what was accepted is answered."""
        self.stopping = True
        if self.under_way:
            self._idle.clear()
            await self._idle.wait()


def make_app(gateway: Gateway, *, secured: bool = False) -> FastAPI:
    """All routes over one gateway, whose life is the caller's. `secured`: behind a bearer token."""
    app = new_app("hybridlab gateway", secured=secured, queue=gateway.queue)
    _openai_routes(app, gateway)
    _hybrid_route(app, gateway)
    _own_routes(app, gateway)
    return app


# ----------------------------------------------------------------------------------- OpenAI's


def _openai_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models", responses=openapi.MODELS | openapi.BEHIND)
    async def models() -> Response:
        sides = (gateway.voxtral, gateway.whisper)
        lists = await asyncio.gather(*(side.object("GET", "/v1/models") for side in sides))
        data = [model for found in lists for model in found["data"]]
        return JSONResponse({"object": "list", "data": data})

    @app.post(
        TRANSCRIPTIONS,
        responses=openapi.TRANSCRIPTION | openapi.BEHIND,
        openapi_extra=openapi.body_of("multipart/form-data", TranscriptionForm),
    )
    async def transcriptions(request: Request) -> Response:
        body = await request.body()
        async with request.form() as form:
            model = form.get("model")
        if not isinstance(model, str):
            raise bad_request("model: Field required")
        return await _passed_on(gateway, request, gateway.of_model(model), body)

    @app.post(
        COMPLETIONS,
        responses=openapi.COMPLETION | openapi.BEHIND,
        openapi_extra=openapi.body_of("application/json", ChatBody),
    )
    async def completions(request: Request) -> Response:
        asked = await json_of(request)
        model = asked.get("model") if isinstance(asked, dict) else None
        upstream = gateway.of_model(str(model or ""))
        return await _passed_on(gateway, request, upstream, await request.body())


async def _passed_on(
    gateway: Gateway, request: Request, upstream: Upstream, body: bytes
) -> Response:
    """The upstream's answer as it is: events as they come, anything else once it is whole."""
    stack = AsyncExitStack()
    try:
        stack.enter_context(gateway.place())
        asked = upstream.asked(
            "POST",
            request.url.path,
            content=body,
            headers={"Content-Type": request.headers.get("content-type", "")},
        )
        answer = await unless_gone(request, stack.enter_async_context(asked))
        headers = {name: answer.headers[name] for name in KEPT if name in answer.headers}
        if "server-timing" in answer.headers:
            headers["server-timing"] = behind(answer.headers["server-timing"])
        pieces = upstream.pieces(answer)
        if "text/event-stream" in headers.get("content-type", ""):
            return Relayed(pieces, headers, stack.pop_all())
        body = await unless_gone(request, _joined(pieces))
        return Response(body, answer.status_code, headers)
    finally:
        await stack.aclose()


def behind(timing: str) -> str:
    """What the upstream says of its time: its `total` is `upstream` here, where `total` will be the
    gateway's own."""
    return timing.replace("total;", "upstream;")


class Relayed(StreamingResponse):
    """Events as they come. However it ends, also before its first event, the upstream's answer is
    closed and the place given back."""

    def __init__(
        self, pieces: AsyncIterator[bytes], headers: Mapping[str, str], stack: AsyncExitStack
    ) -> None:
        super().__init__(_relayed(pieces), headers=headers)
        self.stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.stack:
            await super().__call__(scope, receive, send)


async def _relayed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces:
            yield piece
    except RefusalError as error:  # the headers have gone out
        yield f"data: {json.dumps(error.as_dict())}\n\n".encode()


async def _joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


# --------------------------------------------------------------------------------- the pair's


def _hybrid_route(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/hybrid", responses=openapi.HYBRID | openapi.BEHIND)
    async def hybrid(request: Request, form: Annotated[HybridForm, File()]) -> Response:
        """A transcript and an answer to each `question`; streamed, the transcript comes first, and
        before each answer its words as they come (`delta`)."""
        asked = form.questions
        if len(asked) > gateway.queue:
            raise too_many_questions(gateway.queue)
        sound = await bytes_of(form.file)
        if not sound:
            raise bad_request("the audio file is empty", code="bad_audio")
        data = base64.b64encode(sound)
        questions = [
            Question(index, text, data, form.max_tokens, stream=form.stream)
            for index, text in enumerate(asked)
        ]
        parts = _parts(gateway, sound, form.language, questions)
        if not form.stream:
            return JSONResponse(await unless_gone(request, whole(parts)))
        # what is refused at once gets its status; after that only an event can tell
        first = await unless_gone(request, anext(parts))
        return events(_hybrid_events(first, parts))


async def _parts(
    gateway: Gateway, sound: bytes, language: str | None, questions: Sequence[Question]
) -> AsyncGenerator[Part, None]:
    with gateway.place():
        parts = hybrid_parts(gateway.whisper, gateway.voxtral, sound, language, questions)
        async with aclosing(parts):
            async for part in parts:
                yield part


async def _hybrid_events(first: Part, parts: AsyncGenerator[Part, None]) -> AsyncIterator[str]:
    try:
        async with aclosing(parts):
            yield wire.event(first[1], first[0])
            async for name, part in parts:
                yield wire.event(part, name)
            yield wire.event({"id": wire.new_id("hybrid")}, "done")
    except RefusalError as error:
        yield wire.failed(error)


# --------------------------------------------------------------------------- health and metrics


def _own_routes(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health/live", responses=openapi.LIVE)
    async def live() -> Response:
        return JSONResponse({"live": True, "reason": ""})

    @app.get("/health/ready", responses=openapi.READY)
    async def ready() -> Response:
        found = await asyncio.gather(gateway.whisper.not_ready(), gateway.voxtral.not_ready())
        stopping = "the gateway is stopping" if gateway.stopping else ""
        reason = "; ".join(why for why in (stopping, *found) if why)
        return readiness(reason)

    @app.get("/metrics", responses=openapi.METRICS, response_class=PlainTextResponse)
    async def metrics() -> Response:
        return metrics_page(gateway.metrics.text())
