"""What a running case tells whoever watches it: one small file, replaced when something changes.

Without a watcher there is no file, and the case pays nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Told:
    """A case's own word on what it does and holds, in bytes; all else of what it uses is found by
    subtraction from a reading of the device."""

    #: What it is about as a whole ('load', 'request' …), and the phases of its tenants in that.
    stage: str = ""
    phase: str = ""
    owners: Mapping[str, int] = field(default_factory=dict)
    #: Of what is in use at rest, what no owner claims; 0 as long as that is not known.
    unnamed_bytes: int = 0
    #: The device's, or the envelope's in which the case is.
    capacity_bytes: int = 0
    enveloped: bool = False
    #: Bytes of the device that others held when the case began.
    others_bytes: int = 0
    #: Processes that work for the case, with what each of them shares with it.
    workers: Mapping[str, int] = field(default_factory=dict)


class Broadcast:
    """The case's side. Without a path nobody watches, and nothing is told."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.told = Told()
        self._lock = threading.Lock()  # tenants at work at once have a thread each

    @property
    def watched(self) -> bool:
        return self.path is not None

    def tell(self, **changes: Any) -> None:
        """Replace these fields of `Told`; the file is written if that changes anything."""
        if self.path is None:
            return
        with self._lock:
            told = replace(self.told, **changes)
            if told == self.told:
                return
            self.told = told
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(told)), encoding="utf-8")
            temporary.replace(self.path)  # a reader never sees half of it


def read_told(path: Path) -> Told:
    """The last word of the case that writes this file; the empty one before its first."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Told()
    return Told(**json.loads(text))
