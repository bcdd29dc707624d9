"""What a live view reads of a running case: bytes in use by owner, and its latest trial."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hybridlab.devices import procfs
from hybridlab.devices.nvml import nvml_used_bytes
from hybridlab.experiments.case import Case
from hybridlab.experiments.live_feed import LiveState, read_told
from hybridlab.reporting.memory_stack import closed_stack


class WatchedCase:
    """One case while it runs: what is known of it so far. `told` is the file in which it tells
    what it does, `trials` the part's table, of which earlier rows do not count."""

    def __init__(self, case: Case, place: str, device: str, told: Path, trials: Path) -> None:
        self.case, self.place, self.device = case, place, device
        self.state = LiveState()
        self.used_bytes = self.highest_bytes = 0
        self.n_trials = 0
        self.latest_trial: dict[str, Any] | None = None
        self.began_s = time.monotonic()
        self._told, self._trials = told, trials
        self._offset = trials.stat().st_size if trials.exists() else 0

    def look(self, pid: int) -> None:
        """Bring it up to date. Without a reading of memory the last one stays."""
        self.state = read_told(self._told)
        used = used_bytes(self.device, pid, self.state)
        if used is not None:
            self.used_bytes, self.highest_bytes = used, max(used, self.highest_bytes)
        self.read_trials()

    def read_trials(self) -> None:
        """Take in the rows that have come since the last look; a row in the making is left."""
        if not self._trials.exists():
            return
        with open(self._trials, "rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for row in map(json.loads, whole.splitlines()):
            if row["case_id"] == self.case.id:
                self.n_trials += 1
                self.latest_trial = row


def stack_of(state: LiveState, used_bytes: float) -> dict[str, float]:
    """What is in use by owner: the named ones as the case says, the rest by what it is about. The
    sum is what is in use."""
    if not state.owners:  # it has only begun
        return {"base": used_bytes}
    known = {owner: state.owners.get(owner, 0) for owner in ("base", "llm", "asr")}
    known["unattributed"] = state.unnamed_bytes
    rest = "unattributed" if state.stage in ("", "maintenance", "close") else "request"
    return closed_stack(used_bytes, known, rest="load" if state.stage.startswith("load") else rest)


def used_bytes(device: str, pid: int, state: LiveState) -> int | None:
    """What the case has in use of the device; None where there is no reading (any more).

    On a card it is what NVML counts beyond other processes', on a host the resident pages of the
    case's process, and of its workers those that are not counted with it already.
    """
    kind, _, index = device.partition(":")
    if kind == "cuda":
        card = nvml_used_bytes(int(index)).value
        return None if card is None else max(0, int(card) - state.others_bytes)
    own = procfs.resident_bytes(pid)
    if not own:
        return None
    shared = state.workers.items()
    return own + sum(max(0, procfs.resident_bytes(int(pid)) - held) for pid, held in shared)
