"""Clients and servers of these tests: routes called in this process, or a server under uvicorn on
loopback and a client that sends what it likes, over models without weights."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from starlette.types import ASGIApp

from hybridlab.models.http_model import chat_body
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.middleware import HELD_BYTES, RequestGuardMiddleware
from hybridlab.server.run import listen, make_server
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role
from tests.server.fakes import FakeModel, Stage, asr, llm, until

TRANSCRIPTIONS, CHAT, HYBRID = "/v1/audio/transcriptions", "/v1/chat/completions", "/v1/hybrid"
FORM = "Content-Type: multipart/form-data; boundary=b"
JSON = "Content-Type: application/json"


# ------------------------------------------------------------------------------------- bodies


def wav(seconds: float = 1.0) -> bytes:
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16_000)) / 16_000)
    buffer = io.BytesIO()
    soundfile.write(buffer, tone, 16_000, format="WAV")
    return buffer.getvalue()


def upload(data: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """A form as httpx takes it."""
    return {"files": {"file": ("../../etc/passwd", data or wav())}, "data": fields}


def question(text: str = "Who?", **more: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    body: dict[str, Any] = json.loads(chat_body("voxtral", wav(), text, **more))
    return body


def part(name: str, data: bytes, more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(**fields: str) -> bytes:
    """A multipart body of an upload and these fields."""
    parts = [part(name, value.encode()) for name, value in fields.items()]
    return b"".join([*parts, part("file", wav(), '; filename="a.wav"'), b"--b--\r\n"])


def head(path: str = CHAT, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def message(path: str = CHAT, body: bytes | None = None, *lines: str) -> bytes:
    """A whole request, JSON unless `lines` say otherwise; the connection is to be closed then."""
    data = json.dumps(question()).encode() if body is None else body
    return (
        head(path, f"Content-Length: {len(data)}", "Connection: close", *(lines or (JSON,))) + data
    )


# ------------------------------------------------------------------------------------ servers


def default_models() -> tuple[FakeModel, ...]:
    return llm(), asr(say=lambda job: "heard", tells_times=True)


@asynccontextmanager
async def routes(
    *models: FakeModel, base: str = "http://localhost:8000", **options: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    """A client of the routes in this process."""
    stage = Stage(*(models or default_models()), **options)
    engine = stage.engine
    transport = httpx.ASGITransport(create_app(engine))
    async with stage, httpx.AsyncClient(transport=transport, base_url=base) as client:
        yield client, engine


class Live:
    """A server at work. `held` counts what a request could leave behind."""

    def __init__(self, stage: Stage, guard: RequestGuardMiddleware, port: int) -> None:
        self.stage = stage
        self.guard = guard
        self.port = port
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False
        )

    def scheduler(self, role: Role = "llm") -> ModelScheduler:
        return self.stage.engine.schedulers[role]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *pieces: bytes) -> asyncio.StreamWriter:
        """Send this and leave the connection open."""
        _, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return writer

    async def exchange(self, *pieces: bytes, seconds: float = 5.0) -> bytes:
        """Send this; all that comes until the server closes. It is read meanwhile, as a server
        that refuses does not wait for the rest."""
        reader, writer = await self.connect()
        found: list[bytes] = []

        async def read() -> None:
            with suppress(ConnectionError):
                while piece := await reader.read(1 << 16):
                    found.append(piece)

        reading = asyncio.create_task(read())
        with suppress(ConnectionError):
            for piece in pieces:
                for start in range(0, len(piece), 1 << 14):
                    writer.write(piece[start : start + (1 << 14)])
                    await writer.drain()
        await asyncio.wait_for(reading, seconds)
        writer.close()
        return b"".join(found)

    def ask(self, text: str = "Who?", **more: Any) -> Awaitable[httpx.Response]:
        """On a connection of its own."""
        return self.client.post(CHAT, json=question(text, **more), headers={"Connection": "close"})

    async def settles(self, before: dict[str, int]) -> None:
        """Nothing is held that was not held before: what is too much never goes away. Less is no
        leak: what tests before this one left open may be collected meanwhile."""

        def more() -> dict[str, int]:
            return {name: n - before[name] for name, n in self.held().items() if n > before[name]}

        with suppress(AssertionError):
            await until(lambda: not more(), 4)
        assert more() == {}

    def held(self) -> dict[str, int]:
        return {
            "tasks": len(asyncio.all_tasks()),
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "waiting": sum(len(s.queue) for s in self.stage.engine.schedulers.values()),
            "at work": sum(len(s.at_work) for s in self.stage.engine.schedulers.values()),
            "budget": self.stage.budget.held_bytes,
            "free bytes of uploads": self.guard.free_bytes,
        }


@asynccontextmanager
async def live(
    *models: FakeModel, held_bytes: int = HELD_BYTES, **options: Any
) -> AsyncIterator[Live]:
    """A server under uvicorn, as `hybridlab serve` runs it."""
    options = {"port": 0, "drain_s": 0, "request_timeout_s": 20, "max_upload_mb": 10, **options}
    stage = Stage(*(models or default_models()), **options)
    engine, settings = stage.engine, stage.engine.settings
    guard = create_app(engine, held_bytes=held_bytes)
    async with stage, listening(guard, engine) as port:
        found = Live(stage, guard, port)
        async with found.client:
            if "llm" in engine.schedulers and not settings.token:
                assert (await found.ask()).status_code == 200  # what is made once is there
            yield found


@asynccontextmanager
async def listening(app: ASGIApp, engine: Engine) -> AsyncIterator[int]:
    """The port on which uvicorn serves this app, as `hybridlab serve` has it."""
    with listen(engine.settings) as listener:
        server = make_server(app, engine)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await serving
