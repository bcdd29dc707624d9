"""Memory that really runs out in a worker: the kernel refuses it more, a smaller Whisper serves,
and the larger one comes back."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from hybridlab.audio import load_clips
from hybridlab.models.base import Model
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Settings
from hybridlab.units import MIB
from tests.server.fakes import until

pytestmark = pytest.mark.usefixtures("case_server")
#: Several windows: their attention takes tens of megabytes, which no free list still holds.
LONG = max(load_clips(), key=lambda clip: clip.audio_s)
#: Enough for the call to reach the worker, where it is told of what the model lacks.
ROOM_BYTES = 10 * MIB


async def starve(scheduler: ModelScheduler) -> None:
    """The kernel gives the worker, which holds no free blocks, hardly any memory more."""
    await scheduler.supervisor.in_thread(scheduler.client.release_cache)
    taken_bytes = await scheduler.supervisor.in_thread(remote_of(scheduler).ask, fill_heap)
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.prlimit(
        remote_of(scheduler).worker.pid, resource.RLIMIT_DATA, (taken_bytes + ROOM_BYTES, most)
    )


def fill_heap(model: Model) -> int:
    """In the worker: take what its heap has free between blocks in use, as trimming gives back the
    pages and not the addresses. What it has taken in all, in bytes."""
    held = model.__dict__["held"] = []
    before = data_bytes()
    while data_bytes() == before:
        held.extend(bytearray(1 << 14) for _ in range(64))
    return data_bytes()


def data_bytes() -> int:
    (taken_kb,) = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(taken_kb) * 1024


Scene = Callable[[httpx.AsyncClient, Engine, ModelScheduler], Awaitable[None]]


def serve(scene: Scene, **options: Any) -> None:
    """The engine with its real workers behind its routes; Whisper alone."""

    async def run() -> None:
        engine = Engine(Settings.from_mapping({"device": "cpu", "only": "asr", **options}))
        try:
            await engine.start()
            transport = httpx.ASGITransport(create_app(engine))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                await scene(client, engine, engine.schedulers["asr"])
        finally:
            await engine.stop()

    asyncio.run(asyncio.wait_for(run(), 120))


async def send(client: httpx.AsyncClient) -> httpx.Response:
    file, form = {"file": ("a", LONG.path.read_bytes())}, {"model": "whisper-1"}
    return await client.post("/v1/audio/transcriptions", files=file, data=form, timeout=30)


async def transcribe(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await send(client)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def counted(engine: Engine, name: str) -> float:
    (value,) = re.findall(
        rf'hybridlab_{name}_total{{role="asr"}} (\S+)', engine.metrics.text().decode()
    )
    return float(value)


def remote_of(scheduler: ModelScheduler) -> Any:
    return scheduler.client.remote  # type: ignore[attr-defined]


def test_a_real_allocation_failure_steps_down_says_so_and_climbs_back() -> None:
    async def scene(client: httpx.AsyncClient, engine: Engine, scheduler: ModelScheduler) -> None:
        before = await transcribe(client)
        assert before["model"] == "whisper-pocket-m"
        assert "instead_of" not in before
        remote = remote_of(scheduler)
        pid, large_bytes = remote.worker.pid, remote.weights_bytes()
        await starve(scheduler)
        during = await transcribe(client)
        assert remote.worker.pid != pid
        assert 0 < remote.weights_bytes() < large_bytes
        assert (during["model"], during["instead_of"]) == ("whisper-pocket-s", "whisper-pocket-m")
        assert during["text"]
        names = ("ooms", "fallbacks", "returns_to_larger")
        assert [counted(engine, name) for name in names] == [2, 1, 0]
        await until(lambda: scheduler.counts.returns_to_larger == 1, 20)
        assert await transcribe(client) == before
        assert [counted(engine, name) for name in names] == [2, 1, 1]

    serve(scene, retry_larger_after_s=0.5)


def test_without_a_smaller_model_it_is_an_error_and_the_next_request_is_served() -> None:
    async def scene(client: httpx.AsyncClient, engine: Engine, scheduler: ModelScheduler) -> None:
        await starve(scheduler)
        answer = await send(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_memory")
        assert answer.headers["retry-after"] == "5"
        unlimited = resource.getrlimit(resource.RLIMIT_DATA)
        resource.prlimit(remote_of(scheduler).worker.pid, resource.RLIMIT_DATA, unlimited)
        assert (await transcribe(client))["text"]
        assert counted(engine, "fallbacks") == counted(engine, "restarts") == 0

    serve(scene, fallback="none")
