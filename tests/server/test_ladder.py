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
from hybridlab.models.base import Tenant
from hybridlab.server.app import make_app
from hybridlab.server.lane import Lane
from hybridlab.server.service import Service
from hybridlab.server.settings import Settings
from hybridlab.server.upkeep import Policy
from hybridlab.units import MIB
from tests.server.fakes import until

pytestmark = pytest.mark.usefixtures("case_server")
#: Several windows: their attention takes tens of megabytes, which no free list still holds.
LONG = max(load_clips(), key=lambda clip: clip.audio_s)
#: Enough for the call to reach the worker, where it is told of what the model lacks.
ROOM_BYTES = 10 * MIB


async def starve(lane: Lane) -> None:
    """The kernel gives the worker, which holds no free blocks, hardly any memory more."""
    await lane.upkeep.in_thread(lane.tenant.clean)
    taken_bytes = await lane.upkeep.in_thread(remote_of(lane).ask, fill_heap)
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.prlimit(worker_of(lane).pid, resource.RLIMIT_DATA, (taken_bytes + ROOM_BYTES, most))


def fill_heap(tenant: Tenant) -> int:
    """In the worker: take what its heap has free between blocks in use, as trimming gives back the
    pages and not the addresses. What it has taken in all, in bytes."""
    held = tenant.__dict__["held"] = []
    before = data_bytes()
    while data_bytes() == before:
        held.extend(bytearray(1 << 14) for _ in range(64))
    return data_bytes()


def data_bytes() -> int:
    (taken_kb,) = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(taken_kb) * 1024


Scene = Callable[[httpx.AsyncClient, Service, Lane], Awaitable[None]]


def serve(scene: Scene, **options: Any) -> None:
    """The service with its real workers behind its routes; Whisper alone."""

    async def run() -> None:
        service = Service(Settings.from_mapping({"device": "cpu", "only": "whisper", **options}))
        try:
            await service.start()
            transport = httpx.ASGITransport(make_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                await scene(client, service, service.the_engine().lanes["whisper"])
        finally:
            await service.stop()

    asyncio.run(asyncio.wait_for(run(), 60))


async def transcribe(client: httpx.AsyncClient) -> dict[str, Any]:
    file = {"file": ("a", LONG.path.read_bytes())}
    answer = await client.post(
        "/v1/audio/transcriptions", files=file, data={"model": "whisper-1"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def counted(service: Service, name: str) -> float:
    (value,) = re.findall(
        rf'hybridlab_{name}_total{{tenant="whisper"}} (\S+)', service.metrics.text().decode()
    )
    return float(value)


def remote_of(lane: Lane) -> Any:
    return lane.tenant.remote  # type: ignore[attr-defined]


def worker_of(lane: Lane) -> Any:
    return remote_of(lane).worker


def test_a_real_allocation_failure_steps_down_says_so_and_climbs_back() -> None:
    async def scene(client: httpx.AsyncClient, service: Service, lane: Lane) -> None:
        before = await transcribe(client)
        assert before["model"] == "whisper-pocket-m"
        assert "instead_of" not in before
        await starve(lane)
        during = await transcribe(client)
        assert (during["model"], during["instead_of"]) == ("whisper-pocket-s", "whisper-pocket-m")
        assert during["text"]
        assert [counted(service, name) for name in ("ooms", "fallbacks", "climbs")] == [2, 1, 0]
        await until(lambda: lane.counts.climbs == 1, 20)
        assert await transcribe(client) == before
        assert [counted(service, name) for name in ("ooms", "fallbacks", "climbs")] == [2, 1, 1]

    serve(scene, climb_after_s=0.5)


def test_without_a_smaller_model_it_is_an_error_and_the_next_request_is_served() -> None:
    async def scene(client: httpx.AsyncClient, service: Service, lane: Lane) -> None:
        await starve(lane)
        file = {"file": ("a", LONG.path.read_bytes())}
        answer = await client.post(
            "/v1/audio/transcriptions", files=file, data={"model": "whisper-1"}, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_memory")
        assert answer.headers["retry-after"] == "5"
        unlimited = resource.getrlimit(resource.RLIMIT_DATA)
        resource.prlimit(worker_of(lane).pid, resource.RLIMIT_DATA, unlimited)
        assert (await transcribe(client))["text"]
        assert counted(service, "fallbacks") == counted(service, "restarts") == 0

    serve(scene, fallback="none")


def test_real_workers_are_cleaned_and_started_again_above_the_bound_of_fragmentation() -> None:
    async def scene(client: httpx.AsyncClient, service: Service, lane: Lane) -> None:
        first = worker_of(lane).pid
        texts = [(await transcribe(client))["text"] for _ in range(2)]
        await until(lambda: lane.counts.cleanings == 1)
        assert worker_of(lane).pid == first
        share = await lane.upkeep.in_thread(lane.tenant.fragmentation)
        assert share is not None
        assert 0 < share < 1
        lane.upkeep.policy = Policy(restart_above=share / 100)
        texts += [(await transcribe(client))["text"] for _ in range(2)]
        await until(lambda: lane.counts.restarts == 2, 20)
        assert worker_of(lane).pid != first
        assert len(set(texts)) == 1
        assert counted(service, "ooms") == 0

    serve(scene, clean_every=2)
