"""A memory limit makes allocations fail for real, and is lifted again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from hybridlab.devices import CpuDevice, memory_limit, resolve_device
from hybridlab.devices.memory_limit import (
    BallastProcess,
    RlimitMemory,
    limit_memory,
    make_memory_limit,
)
from hybridlab.errors import UnavailableError
from hybridlab.units import MIB

CODE = """
import torch
from hybridlab.devices import CpuDevice
from hybridlab.devices.memory_limit import limit_memory
from hybridlab.devices.out_of_memory import out_of_memory
device = CpuDevice()
torch.ones(1)
with limit_memory(device, 200 * 2**20):
    assert device.memory_limited and device.external_bytes().value == 0
    kept = torch.ones(100 * 2**18)  # 100 MiB fit
    assert device.free_bytes() < 120 * 2**20, device.free_bytes()
    try:
        torch.ones(150 * 2**18)
    except RuntimeError as error:
        failure = out_of_memory(error)
        assert failure.requested_bytes == 150 * 2**20, error
    else:
        raise SystemExit("150 MiB more fitted into 200 MiB")
torch.ones(150 * 2**18)
assert not device.memory_limited
try:
    with limit_memory(device, 10**12):
        raise ZeroDivisionError
except ZeroDivisionError:
    assert not device.memory_limited
"""


def test_a_cpu_runs_out_of_memory_inside_and_not_outside() -> None:
    assert isinstance(make_memory_limit(CpuDevice()), RlimitMemory)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class FakeCard:
    """A card whose free bytes shrink by what is held; allocations come in blocks of 2 MiB."""

    def __init__(self, total: int, used: int) -> None:
        self.total, self.used = total, used

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return self.total - self.used, self.total

    def empty(self, n_bytes: int, **_: Any) -> Block:
        rounded = -(-n_bytes // (2 * MIB)) * 2 * MIB
        if rounded > self.total - self.used:
            raise RuntimeError("CUDA out of memory")
        return Block(self, rounded)


class Block:
    def __init__(self, card: FakeCard, n_bytes: int) -> None:
        self.card, self.n_bytes = card, n_bytes
        card.used += n_bytes

    def __del__(self) -> None:
        self.card.used -= self.n_bytes


def test_a_ballast_leaves_what_was_asked_is_resized_and_lifted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    card = FakeCard(total=80_000 * MIB, used=500 * MIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", card.mem_get_info)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "empty", card.empty)
    targets = [15_000 * MIB, 900 * MIB, memory_limit.HOLD_NOTHING, 40_000 * MIB]
    expected = [card.total - 500 * MIB if t == memory_limit.HOLD_NOTHING else t for t in targets]
    found = list(memory_limit.hold("cuda:0", iter(targets)))
    assert found == pytest.approx(expected, abs=memory_limit.TOLERANCE_BYTES)


class Small(CpuDevice):
    """A GPU of 1,000 MiB, some of them in use."""

    is_host = False
    name = "cuda:0"
    taken_bytes = 0

    def _capacity_bytes(self) -> int:
        return 1_000 * MIB

    def free_bytes(self) -> int:
        return self._capacity_bytes() - self.taken_bytes


def test_a_card_that_is_no_larger_than_the_limit_stays_as_it_is() -> None:
    card = Small()
    for size in (1_000 * MIB, 1_200 * MIB, 900 * MIB):  # a ballast's own context is as large
        with limit_memory(card, size):
            assert not card.memory_limited
    assert memory_limit.is_larger(card, 500 * MIB)


def test_a_limit_that_others_fill_already_is_refused() -> None:
    card = Small()
    card.taken_bytes = 600 * MIB
    with (
        pytest.raises(UnavailableError, match="600 MiB of cuda:0 are in use"),
        limit_memory(card, 500 * MIB),
    ):
        pytest.fail("there was no room")
    assert not card.memory_limited


def test_a_ballast_that_ends_is_a_lack_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with (
        pytest.raises(UnavailableError, match="ended before it held"),
        limit_memory(Small(), 500 * MIB),
    ):
        pytest.fail("there is no ballast")


@pytest.mark.gpu
def test_one_ballast_grows_and_shrinks_until_the_limit_is_closed() -> None:
    import torch

    gpu = resolve_device("cuda")
    torch.zeros(1, device=gpu.name)
    gpu.release()
    before = torch.cuda.mem_get_info()[0]
    with make_memory_limit(gpu) as limit:
        assert isinstance(limit, BallastProcess)
        limit.leave(500 * MIB)
        process = limit._process
        for room in (900 * MIB, 300 * MIB):
            limit.lift()
            assert torch.cuda.mem_get_info()[0] > 1_000 * MIB
            limit.leave(room)
            assert abs(torch.cuda.mem_get_info()[0] - room) <= memory_limit.TOLERANCE_BYTES
        assert limit._process is process
        assert process is not None and process.poll() is None
    assert process.poll() == 0
    assert torch.cuda.mem_get_info()[0] == pytest.approx(before, abs=memory_limit.TOLERANCE_BYTES)
