"""What the page is made of: cells and tables, and the words for what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hybridlab.reporting.html import reading
from hybridlab.results import records
from hybridlab.units import format_bytes, format_number, format_seconds

EMPTY = "–"
Tone = Literal["", "good", "bad", "warn", "plain"]

#: The tone of a badge for every status and verdict; the words stand in it too.
TONES: dict[str, Tone] = {
    "ok": "good",
    "completed": "good",
    "supported": "good",
    "equal": "good",
    "fits": "good",
    "does not fit": "bad",
    "oom": "bad",
    "crashed": "bad",
    "failed": "bad",
    "timeout": "bad",
    "invalid": "bad",
    "refuted": "bad",
    "differ": "bad",
    "skipped": "warn",
    "running": "warn",
    "inconclusive": "warn",
    "not run": "warn",
    "changed": "warn",
}


@dataclass(frozen=True)
class Cell:
    """A table's cell: words, and whether they are a badge, a link, a file to save or more links.

    `href` may be a data URI; `save_as` is then the name under which a browser stores it.
    """

    text: str
    tone: Tone = ""
    href: str = ""
    save_as: str = ""
    links: tuple[Cell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page; `numeric` are the indices of the columns set flush right."""

    columns: tuple[str, ...]
    rows: list[list[Cell]] = field(default_factory=list)
    numeric: frozenset[int] = frozenset()
    empty: str = "There are no rows."
    #: An id for each row, or none at all: what links lead to.
    anchors: tuple[str, ...] = ()


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    numeric: Sequence[int] = (),
    empty: str = "There are no rows.",
    anchors: Sequence[str] = (),
) -> Table:
    """A table whose plain strings become cells."""
    cells = [[c if isinstance(c, Cell) else Cell(c or EMPTY) for c in row] for row in rows]
    return Table(
        columns=tuple(columns),
        rows=cells,
        numeric=frozenset(numeric),
        empty=empty,
        anchors=tuple(anchors),
    )


def badge(status: str) -> Cell:
    """A status or verdict as a badge."""
    return Cell(status or "unknown", TONES.get(status, "plain"))


def is_missing(value: Any) -> bool:
    """None, not-a-number, infinity or nothing but blanks."""
    if value is None or isinstance(value, (list, dict, tuple)):
        return value is None
    if isinstance(value, str):
        return not value.strip()
    return bool(pd.isna(value)) or (isinstance(value, float) and math.isinf(value))


def words(value: Any, *, empty: str = EMPTY) -> str:
    """Any value as one line of text; `empty` where it is missing."""
    if is_missing(value):
        return empty
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(words(item) for item in value) or empty
    return " ".join(str(value).split())


def as_bytes(value: Any) -> str:
    """Bytes with their unit."""
    return EMPTY if is_missing(value) else format_bytes(float(value))


def as_seconds(value: Any) -> str:
    """Seconds with their unit."""
    return EMPTY if is_missing(value) else format_seconds(float(value))


def per_minute(rate_rps: Any) -> str:
    """Requests per second as requests per minute: '9.31 / min', '1,071 / min'."""
    if is_missing(rate_rps):
        return EMPTY
    rate = float(rate_rps) * 60
    return f"{format_number(rate)} / min"


@dataclass(frozen=True)
class Run:
    """A run folder, read once; whatever is not there is empty, whatever is damaged is noted."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        reading.check_folder(self.folder)

    def note(self, sentence: str) -> None:
        """Remember what could not be read, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return reading.read_object(self.folder / "manifest.json", self.note)

    @cached_property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Manifests of the parts by notebook; a part without one was interrupted."""
        return {
            path.name: reading.read_object(path / "manifest.json", self.note)
            for path in sorted(self.folder.glob("parts/*/"))
        }

    @cached_property
    def verdict(self) -> dict[str, Any]:
        return reading.read_object(self.folder / "verdict.json", self.note)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        return {name: reading.read_table(self.folder, name, self.note) for name in records.TABLES}

    @cached_property
    def inner(self) -> list[Run]:
        """Runs whose folders lie in this one's: on a simulated card beside this machine's."""
        folders = sorted(path.parent for path in self.folder.glob("*/manifest.json"))
        return [Run(folder) for folder in folders if (folder / "parts").is_dir()]

    @property
    def cases(self) -> pd.DataFrame:
        return self.tables["cases"]

    @property
    def name(self) -> str:
        """The run's own name, else its folder's."""
        return words(self.manifest.get("run_id"), empty=self.folder.name)

    def origin(self, key: str) -> Any:
        """A value of the run's manifest, or of the first part that knows it."""
        for manifest in (self.manifest, *self.parts.values()):
            if not is_missing(manifest.get(key)):
                return manifest[key]
        return None

    @property
    def params(self) -> dict[str, Any]:
        """What was asked of the run, else of its parts."""
        given = dict(self.manifest.get("params") or {})
        if not given:
            for part in self.parts.values():
                given |= part.get("params") or {}
        return given
