"""A real server in this process, over workers that wait or end themselves where a test says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from hybridlab.models import worker_model
from hybridlab.processes.worker import Worker
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Settings
from tests.server.live import listening

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
    """On a thread of its own."""
    running = _serving(settings.model_copy(update={"port": 0}))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running) as served:
        yield served


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[Served]:
    engine = Engine(settings)
    try:
        await engine.start()
        async with listening(create_app(engine), engine) as port:
            yield Served(engine, f"http://127.0.0.1:{port}")
    finally:
        await engine.stop()


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

    worker_model._the_hosted().model.on_phase = enter
