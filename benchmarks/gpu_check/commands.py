"""A step's programs: each with its own time, whose end is told and never raised."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hybridlab.devices import procfs
from hybridlab.units import format_seconds

#: What a program that is told to end has for it; then it is ended.
GRACE_S = 8.0
LACKS = ("UnavailableError", "OutOfMemoryError")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

Status = Literal["ok", "failed", "skipped", "cut"]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Command:
    """`name` is what its rows go by: JSON on its stdout, one value in all or one in each line."""

    name: str
    argv: Sequence[str]
    #: Its stdout is for people.
    says_rows: bool = True


@dataclass(frozen=True, kw_only=True)
class Ended:
    status: Status
    seconds: float
    rows: Rows
    #: Why it is not ok, in one line.
    reason: str = ""


def run(command: Command, *, limit_s: float, log: Path, scratch: Path) -> Ended:
    """Run it for at most so long, the time to end it included; what it has said until then is
    kept. A lack of the machine is `skipped`."""
    said = scratch / f"{command.name}.out"
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as errors, said.open("w") as rows:
        errors.write(f"\n--- {command.name}: {' '.join(command.argv)}\n")
        errors.flush()
        start = errors.tell()
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=rows if command.says_rows else errors,
            stderr=errors,
            env={**os.environ, **OFFLINE, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # a Ctrl-C at the whole check is passed on once, by `end`
        )
        try:
            code: int | None = process.wait(max(0.0, limit_s - GRACE_S))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    seconds = time.monotonic() - began
    found = parsed(said.read_text(encoding="utf-8")) if command.says_rows else []
    status, reason = verdict(code, last_line(log, start), limit_s)
    return Ended(status=status, seconds=seconds, rows=found, reason=reason)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end as Ctrl-C does, then end it with all that it has started."""
    if process.poll() is not None:
        return
    family = procfs.process_tree(process.pid)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S * 0.75)
    for pid in {*family, *procfs.process_tree(process.pid)}:
        kill(pid)
    process.wait()


def kill(pid: int) -> None:
    """End a process and wait until it has ended, which a busy machine does not do at once."""
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], GRACE_S)
        finally:
            os.close(process)


def verdict(code: int | None, last: str, limit_s: float) -> tuple[Status, str]:
    """What became of a program with this exit code (None: its time was over) and last line."""
    if code is None:
        return "cut", f"cut after {format_seconds(limit_s)}"
    if code == 0:
        return "ok", ""
    name = last.partition(":")[0].rpartition(".")[2]
    if name in LACKS:
        return "skipped", last.partition(": ")[2]
    return "failed", last or f"it ended with exit code {code}"


def last_line(log: Path, start: int) -> str:
    """Of what was written to this file from this place on."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def parsed(text: str) -> Rows:
    """One JSON value, or as many whole lines of JSON as there are: the last may be cut."""
    with suppress(json.JSONDecodeError):
        return [json.loads(text)]
    found = []
    for line in text.splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found
