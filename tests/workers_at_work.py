"""Functions that tests run inside workers and cases: those must be importable there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridlab.models import worker_model

_kept: list[Any] = []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before or while it was read
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool], *, timeout_s: float = 10.0) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descendants(pid: int) -> set[int]:
    """Living processes that this one started, and theirs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    while grown := {c for c, p in parents.items() if (p == pid or p in found) and c not in found}:
        found |= grown
    return found


def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def allocate_too_much() -> None:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def fill(n_bytes: int) -> int:
    """Take memory and keep it."""
    kept.append(bytearray(b"x") * n_bytes)
    return len(kept)


kept: list[bytearray] = []


def die_when_decoding() -> None:
    """Make this worker's model end its own process with SIGKILL in the middle of a request."""

    def enter(phase: str) -> None:
        if phase.endswith("decode"):
            os.kill(os.getpid(), signal.SIGKILL)

    worker_model._the_hosted().model.on_phase = enter


def run_out_in_requests() -> None:
    """Make this worker's model run out of memory for real when it encodes."""
    hosted = worker_model._the_hosted()

    def enter(phase: str) -> None:
        hosted.phase = phase or "between phases"
        if phase.endswith("encode"):
            allocate_too_much()

    hosted.model.on_phase = enter


def fill_card(leaves_bytes: int) -> None:
    """Hold all of the first GPU but so much, as long as this process lives."""
    import torch

    torch.zeros(1, device="cuda")
    free = torch.cuda.mem_get_info(0)[0]
    _kept.append(torch.empty(free - leaves_bytes, dtype=torch.uint8, device="cuda"))
