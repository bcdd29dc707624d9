"""What a watcher reads of a running case: bytes in use in a thread, trials from their table."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any, Self

from hybridlab.devices import procfs
from hybridlab.devices.nvml import nvml_used_bytes
from hybridlab.experiments.live_feed import LiveState, read_told
from hybridlab.profiling.memory_profiler import Sampler
from hybridlab.reporting.memory_stack import closed_stack
from hybridlab.widgets.memory_svg import WINDOW_S, Moment

INTERVAL_S = 0.25


def stack_of(told: LiveState, used_bytes: float) -> dict[str, float]:
    """What is in use by owner: the named ones as the case says, the rest by what it is about. The
    sum is what is in use."""
    if not told.owners:  # it has only begun
        return {"base": used_bytes}
    known = {owner: told.owners.get(owner, 0) for owner in ("base", "llm", "asr")}
    known["unattributed"] = told.unnamed_bytes
    return closed_stack(used_bytes, known, rest=_rest_owner(told.stage))


def _rest_owner(stage: str) -> str:
    """The owner of the bytes above the idle ones."""
    if stage.startswith("load"):
        return "load"
    return "unattributed" if stage in ("", "maintenance", "close") else "request"


def used_bytes(device: str, pid: int, told: LiveState) -> int | None:
    """What the case has in use of the device; None where there is no reading (any more).

    On a card it is what NVML counts beyond other processes', on a host the resident pages of the
    case's process, and of its workers those that are not counted with it already.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda":
        card = nvml_used_bytes(int(index)).value
        return None if card is None else max(0, int(card) - told.others_bytes)
    own = procfs.resident_bytes(pid)
    if not own:
        return None
    workers = (
        max(0, procfs.resident_bytes(int(worker)) - shared)
        for worker, shared in told.workers.items()
    )
    return own + sum(workers)


class Readings:
    """The memory of a running case by owner, read at a fixed interval on a thread of its own."""

    def __init__(self, device: str, pid: int, path: Path) -> None:
        self.device, self.pid, self.path = device, pid, path
        self.told = LiveState()
        self.history: deque[Moment] = deque(maxlen=int(WINDOW_S / INTERVAL_S) + 1)
        self._sampler = Sampler(self._read, interval_s=INTERVAL_S)

    def _read(self) -> int:
        told = read_told(self.path)
        used = used_bytes(self.device, self.pid, told)
        self.told = told
        if used is not None:
            self.history.append(Moment(time.monotonic(), stack_of(told, used)))
        return used or 0

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.__exit__()


class Trials:
    """The trials of one case, as it appends them to the part's table."""

    def __init__(self, path: Path, case_id: str) -> None:
        self.path, self.case_id = path, case_id
        self._offset = path.stat().st_size if path.exists() else 0
        self.count = 0
        self.latest: dict[str, Any] | None = None

    def read(self) -> None:
        """Take in the rows that have come since the last look; a row in the making is left."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [json.loads(line) for line in whole.splitlines()]
        own = [row for row in rows if row["case_id"] == self.case_id]
        if own:
            self.count += len(own)
            self.latest = own[-1]
