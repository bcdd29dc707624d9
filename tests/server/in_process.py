"""A real server in this process, over workers that wait or end themselves where a test says so."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from hybridlab.models import worker_model
from hybridlab.processes.worker import Worker
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Settings
from tests.workers_at_work import wait_until

#: What the pocket Voxtral answers at length.
LONG = "repeat"
WAIT_S = 20.0


@dataclass
class Served:
    engine: Engine
    url: str

    @property
    def scheduler(self) -> ModelScheduler:
        """The LLM's."""
        return self.engine.schedulers["llm"]

    @property
    def _worker(self) -> Worker:
        assert self.engine.pool is not None
        (worker,) = (m.remote.worker for m in self.engine.pool.models if m.role == "llm")
        return worker

    def pause(self, until: Path) -> None:
        """The next answer waits for this file when two tokens are out."""
        self._worker.call(_before_third_decode, str(until))

    def kill_in_mid_answer(self) -> None:
        """The LLM's worker ends itself when two tokens of the next answer are out."""
        self._worker.call(_before_third_decode, "")


@contextmanager
def in_process(settings: Settings) -> Iterator[Served]:
    engine = Engine(settings)
    config = uvicorn.Config(create_app(engine), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)

    async def serve() -> None:
        await engine.start()
        await server.serve()
        await engine.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert wait_until(lambda: server.started, timeout_s=60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(engine, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
    assert not thread.is_alive()


# ---------------------------------------------------------------------------- inside the worker


def _before_third_decode(path: str) -> None:
    """Let this worker, once, wait for a file, or end itself without one, when two tokens are out
    and the next is to be decoded."""
    steps = iter(range(1000))

    def enter(phase: str) -> None:
        if not phase.endswith("decode") or next(steps) != 2:
            return
        if not path:
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + WAIT_S
        while not Path(path).exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    worker_model._the_hosted().tenant.on_phase = enter
