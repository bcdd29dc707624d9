"""What a running case tells a live view: a line in a file each time something changes.

Without a watcher there is no file, and the case pays nothing. A line takes some 20 microseconds;
replacing a small file would take a hundred times as long where the disk is told of it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

#: More than any line has.
LINE_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class LiveState:
    """A case's own word on what it does and holds, in bytes; all else of what it uses is found by
    subtraction from a reading of the device."""

    #: What it is about as a whole ('load', 'request' …), and the phases of its models in that.
    stage: str = ""
    phase: str = ""
    owners: Mapping[str, int] = field(default_factory=dict)
    #: Of what is in use at rest, what no owner claims; 0 as long as that is not known.
    unnamed_bytes: int = 0
    #: The device's, or that of its memory limit.
    capacity_bytes: int = 0
    memory_limited: bool = False
    #: Bytes of the device that others held when the case began.
    others_bytes: int = 0
    #: Processes that work for the case, with what each of them shares with it.
    workers: Mapping[str, int] = field(default_factory=dict)


class LiveFeed:
    """The case's side. Without a path there is no view, and nothing is written."""

    def __init__(self, path: Path | None = None) -> None:
        self.told = LiveState()
        self._file = FileIO(path, "ab") if path is not None else None
        self._lock = threading.Lock()  # models at work at once have a thread each

    @property
    def watched(self) -> bool:
        return self._file is not None

    def tell(self, **changes: Any) -> None:
        """Replace these fields of `LiveState`; a line is written if that changes anything."""
        if self._file is None:
            return
        with self._lock:
            told = replace(self.told, **changes)
            if told != self.told:
                self.told = told
                self._file.write(json.dumps(vars(told)).encode() + b"\n")


def read_told(path: Path) -> LiveState:
    """The last word of the case that writes this file; the empty one before its first."""
    if not path.exists():
        return LiveState()
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * LINE_BYTES))
        *lines, _in_the_making = file.read().split(b"\n")
    return LiveState(**json.loads(lines[-1])) if lines else LiveState()
