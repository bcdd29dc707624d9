"""A server and a gateway on loopback, in a thread of this process, over tenants without models."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from hybridlab.server import app, gateway
from hybridlab.server.gateway import Gateway
from hybridlab.server.security import Gate
from hybridlab.server.service import Service
from hybridlab.server.settings import Settings
from hybridlab.server.upstream import Upstream
from tests.server.fakes import Stage, voxtral, whisper
from tests.server.test_routes import InProcessDecoder

#: Asked for by both.
TOKEN = "t0ken"


@dataclass
class Doors:
    """Addresses of a server over tenants without models and of a gateway before it."""

    urls: dict[str, str] = field(default_factory=dict)
    #: How often each route of either answered with each status.
    answers: dict[str, Counter[tuple[str, int]]] = field(default_factory=dict)


@contextmanager
def doors() -> Iterator[Doors]:
    found = Doors()
    stop = threading.Event()
    opened = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(found, opened, stop)))
    thread.start()
    try:
        assert opened.wait(20)
        yield found
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


async def _serve(found: Doors, opened: threading.Event, stop: threading.Event) -> None:
    service = Service(Settings())
    async with Stage(voxtral(), whisper(say=lambda job: "heard")) as stage:
        service.engine, service.decoder = stage.engine, InProcessDecoder()  # type: ignore[assignment]
        async with _door(found, "server", app.make_app(service, secured=True)) as url:
            sides = [Upstream(n, url, token=TOKEN, timeout_s=20) for n in ("whisper", "voxtral")]
            behind = Gateway(*sides, queue=64)
            async with _door(found, "gateway", gateway.make_app(behind, secured=True)):
                opened.set()
                await asyncio.to_thread(stop.wait)
            await behind.close()


@asynccontextmanager
async def _door(found: Doors, name: str, routes: Any) -> AsyncIterator[str]:
    """Serves; says the address."""
    answers = found.answers[name] = Counter()
    gate = Gate(
        routes,
        token=TOKEN,
        loopback=True,
        max_upload_bytes=10**7,
        upload_timeout_s=20.0,
        most_requests=100,
        on_done=lambda route, status, seconds: answers.update([(route, status)]),
    )
    server = uvicorn.Server(uvicorn.Config(gate, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    found.urls[name] = f"http://127.0.0.1:{port}"
    try:
        yield found.urls[name]
    finally:
        server.should_exit = True
        await serving
