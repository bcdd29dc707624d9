"""Somebody who watches cases without a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridlab.experiments.case import Case
from hybridlab.results.run_folder import NotebookRun


class Watcher:
    """Asks `tick(pid)` whether to stop the case, and keeps what it saw."""

    def __init__(self, folder: Path, *, tick: Callable[[int], bool]) -> None:
        self.told, self.tick = folder / "told.jsonl", tick
        self.stopped = False
        self.places: list[str] = []
        self.rows: list[Mapping[str, Any]] = []

    @contextmanager
    def watch(self, part: NotebookRun, case: Case, place: str) -> Iterator[Path]:
        self.places.append(place)
        yield self.told

    def ended(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)
