"""A server under uvicorn on loopback, in this process, over tenants without models; and a client
that sends what it likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from hybridlab.server.app import make_app
from hybridlab.server.door import draining_server, listen
from hybridlab.server.security import Gate
from hybridlab.server.service import Service
from hybridlab.server.settings import Settings
from tests.server.fakes import FakeTenant, Stage, until, voxtral, whisper
from tests.server.test_routes import CHAT, InProcessDecoder, question


class Live:
    """A server at work. `held` counts what a request could leave behind."""

    def __init__(self, stage: Stage, gate: Gate, port: int) -> None:
        self.stage = stage
        self.gate = gate
        self.port = port
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False
        )

    def lane(self, name: str = "voxtral") -> Any:
        return self.stage.engine.lanes[name]

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
        body = asking(text, **more)
        return self.client.post(CHAT, json=body, headers={"Connection": "close"})

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
            "waiting": sum(len(lane.waiting) for lane in self.stage.engine.lanes.values()),
            "at work": sum(len(lane.at_work) for lane in self.stage.engine.lanes.values()),
            "room": self.stage.room.held_bytes,
            "free bytes of uploads": self.gate.free_bytes,
        }


def asking(text: str, **more: Any) -> dict[str, Any]:
    body = question(**more)
    body["messages"][0]["content"][1]["text"] = text
    return body


def head(path: str = CHAT, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def message(path: str = CHAT, body: bytes | None = None, *lines: str) -> bytes:
    """A whole request, JSON unless `lines` say otherwise; the connection is to be closed then."""
    data = json.dumps(question()).encode() if body is None else body
    kind = lines or ("Content-Type: application/json",)
    return head(path, f"Content-Length: {len(data)}", "Connection: close", *kind) + data


@asynccontextmanager
async def live(
    *tenants: FakeTenant,
    queue: int = 64,
    max_upload_bytes: int = 10**7,
    upload_timeout_s: float = 20.0,
    held_bytes: int = 10**9,
    **options: Any,
) -> AsyncIterator[Live]:
    settings = Settings(port=0, queue=queue, drain_s=0)
    service = Service(settings)
    pair = tenants or (voxtral(), whisper(say=lambda job: "heard"))
    stage = Stage(*pair, queue=queue, **options)
    service.engine, service.decoder = stage.engine, InProcessDecoder()  # type: ignore[assignment]
    gate = Gate(
        make_app(service),
        token="",
        loopback=True,
        max_upload_bytes=max_upload_bytes,
        upload_timeout_s=upload_timeout_s,
        most_requests=settings.most_requests,
        held_bytes=held_bytes,
        on_done=service.metrics.request_done,
    )
    with listen(settings) as listener:
        server = draining_server(gate, settings, service.drain)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        found = Live(stage, gate, listener.getsockname()[1])
        async with stage, found.client:
            await until(lambda: server.started)
            assert (await found.ask()).status_code == 200  # what is made once is there
            yield found
            server.should_exit = server.force_exit = True
            await serving


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))
