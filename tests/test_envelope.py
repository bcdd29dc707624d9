"""An envelope makes allocations fail for real, and lets go again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hybridlab import envelope
from hybridlab.device import CpuDevice
from hybridlab.envelope import DataLimit, enveloped, make_envelope
from hybridlab.units import MIB

CODE = """
import torch
from hybridlab.device import CpuDevice
from hybridlab.envelope import enveloped
from hybridlab.oom import out_of_memory
device = CpuDevice()
torch.ones(1)
with enveloped(device, 200 * 2**20):
    assert device.enveloped and device.outside_bytes().value == 0
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
assert not device.enveloped
"""


def test_a_cpu_runs_out_of_memory_inside_and_not_outside() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_cpu_envelope_is_a_data_limit() -> None:
    assert isinstance(make_envelope(CpuDevice()), DataLimit)


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


def test_a_ballast_leaves_what_was_asked_and_can_be_resized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    card = FakeCard(total=80_000 * MIB, used=500 * MIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", card.mem_get_info)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "empty", card.empty)

    def targets() -> Iterator[int]:
        yield from (15_000 * MIB, 900 * MIB, 40_000 * MIB)

    for target, free in zip(targets(), envelope.hold("cuda:0", targets()), strict=True):
        assert abs(free - target) <= envelope.TOLERANCE_BYTES


def test_the_limit_is_lifted_after_a_fault() -> None:
    device = CpuDevice()
    with pytest.raises(ZeroDivisionError), enveloped(device, 10**12):
        raise ZeroDivisionError
    assert not device.enveloped
