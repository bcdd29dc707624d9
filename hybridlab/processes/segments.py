"""Segments of torch's CUDA allocator that grow in place, where the driver lets them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hybridlab.devices import Device, resolve_device
from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import shared_server
from hybridlab.simulation import STATE_VARIABLE

TRIAL_TIMEOUT_S = 120.0


def expand_segments(device: Device) -> None:
    """Let the allocator's segments grow in place, before anything is allocated; `UnavailableError`
    where it cannot. Tried in a process of its own first: with some drivers the first allocation
    ends in an error or a crash (https://github.com/pytorch/pytorch/issues/186374)."""
    if device.capability is not None:
        with tempfile.TemporaryDirectory(prefix="hybridlab-segments-") as folder:
            log = Path(folder) / "log"
            ended = shared_server().run(_grow, device.name, timeout_s=TRIAL_TIMEOUT_S, log=log)
            said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        if not ended.ok:
            why = said[-1] if said else ended.describe("the trial's")
            raise UnavailableError(
                f"expandable segments do not work on {device.title()} with this driver: {why}"
            )
    device.expand_segments()


def _grow(name: str) -> None:
    """Two blocks that a segment must grow for, one after the other, and a sum over both."""
    import torch

    if STATE_VARIABLE in os.environ:  # a simulated card: the sum is to have its value
        from hybridlab.simulation import values

        values.install("all")
    resolve_device(name).expand_segments()
    blocks = [torch.ones(2**22, dtype=torch.int32, device=name) for _ in range(2)]
    total = sum(int(block.sum()) for block in blocks)
    if total != 2**23:
        raise UnavailableError(f"a sum over {2**23} ones is {total}")
