"""Whose the card's bytes are, as NVML and the workers tell it: a card of 16,000 bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hybridlab.devices import CudaDevice
from hybridlab.server.memory import SharedMemory
from tests.fake_nvml import FakeNvml

WHISPER, VOXTRAL, STRANGER = 11, 12, 13


def model(role: str, pid: int, *, weights: int, used: int, reserved: int) -> Any:
    member = SimpleNamespace(
        alive=True, pids=[pid], used_bytes=lambda: used, reserved_bytes=lambda: reserved
    )
    remote = SimpleNamespace(member=member, weights_bytes=lambda: weights)
    return SimpleNamespace(
        role=role, remote=remote, cached_bytes=reserved - used, offloadable_bytes=0, member=member
    )


@pytest.fixture
def memory(nvml: FakeNvml) -> SharedMemory:
    """Two workers beside a stranger of 1,000 bytes, with 100 for a context each; Voxtral's keeps
    300, Whisper's 50."""
    nvml.used = 1_000
    memory = SharedMemory(CudaDevice(0))
    memory.models = [
        model("llm", VOXTRAL, weights=5_000, used=5_200, reserved=5_500),
        model("asr", WHISPER, weights=900, used=950, reserved=1_000),
    ]
    nvml.used = 1_000 + 5_600 + 1_100
    return memory


def shown(nvml: FakeNvml) -> None:
    nvml.held = {VOXTRAL: 5_600, WHISPER: 1_100, STRANGER: 1_000}
    nvml.pids = list(nvml.held)


OWNERS = {
    "llm weights": 5_000,
    "llm working memory": 200,
    "asr weights": 900,
    "asr working memory": 50,
    "allocator cache": 350,
    "workers' contexts": 200,
    "others": 1_000,
}


@pytest.mark.parametrize("processes", ["shown", "hidden"])
def test_each_byte_has_its_owner(memory: SharedMemory, nvml: FakeNvml, processes: str) -> None:
    if processes == "shown":
        shown(nvml)
    memory.settle()
    assert memory.owners(idle=True) == OWNERS
    assert memory.others_bytes(idle=True) == 1_000
    nvml.used += 500
    assert memory.owners(idle=True) == {**OWNERS, "others": 1_500}


def test_what_requests_may_take_is_what_is_free_and_what_is_only_kept(
    memory: SharedMemory, nvml: FakeNvml
) -> None:
    free = 16_000 - 400 - nvml.used
    assert memory.free_bytes() == free
    assert memory.available_bytes() == free + 350


def test_what_a_worker_takes_while_it_works_is_no_stranger_s(
    memory: SharedMemory, nvml: FakeNvml
) -> None:
    memory.settle()
    nvml.used += 2_000
    assert memory.others_bytes(idle=False) is None  # that cannot be told
    shown(nvml)
    nvml.held[WHISPER] += 2_000
    assert memory.others_bytes(idle=False) == 1_000
    found = memory.owners(idle=False)
    assert (found["allocator cache"], found["others"]) == (2_350, 1_000)


def test_a_dead_worker_holds_nothing(memory: SharedMemory, nvml: FakeNvml) -> None:
    shown(nvml)
    memory.settle()
    memory.models[1].remote.member.alive = False
    del nvml.held[WHISPER]
    nvml.pids.remove(WHISPER)
    nvml.used -= 1_100
    assert memory.others_bytes(idle=True) == 1_000


def test_without_nvml_nothing_is_said(memory: SharedMemory, nvml: FakeNvml) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise nvml.NVMLError("Not Supported")

    nvml.nvmlDeviceGetMemoryInfo = refuse  # type: ignore[method-assign,assignment]
    assert (memory.free_bytes(), memory.available_bytes(), memory.others_bytes(idle=True)) == (
        None,
    ) * 3
    assert "others" not in memory.owners(idle=True)
