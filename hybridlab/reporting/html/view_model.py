"""What a page is made of: a run that is read once, and tables whose cells are words or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from hybridlab.analysis.case_status import valid_times
from hybridlab.reporting.labels import EMPTY, is_missing, text
from hybridlab.reporting.rows import complete
from hybridlab.reporting.tables.shown import is_figures
from hybridlab.results.reader import check_run, part_folders, read_object, run_table
from hybridlab.results.schema import TABLES

#: The tone of a badge for every status and verdict; the words stand in it too.
TONES = {
    **dict.fromkeys(("ok", "completed", "supported", "equal", "fits"), "good"),
    **dict.fromkeys(("does not fit", "oom", "crashed", "failed", "timeout"), "bad"),
    **dict.fromkeys(("invalid", "refuted", "differ"), "bad"),
    **dict.fromkeys(("skipped", "running", "inconclusive", "not run", "changed"), "warn"),
}


def badge(status: str, tone: str = "") -> Markup:
    """A status or verdict as a badge."""
    tone = tone or TONES.get(status, "plain")
    return Markup('<span class="badge {}">{}</span>').format(tone, status or "unknown")


def link(words: str, href: str, *, save_as: str = "") -> Markup:
    """A link; `href` may be a data URI, which a browser stores under the name `save_as`."""
    download = Markup(' download="{}"').format(save_as) if save_as else ""
    return Markup('<a href="{}"{}>{}</a>').format(href, download, words)


def bullets(sentences: Sequence[str]) -> Markup:
    """A list of sentences."""
    items = (Markup("<li>{}</li>").format(sentence) for sentence in sentences)
    return Markup("<ul>{}</ul>").format(Markup("\n").join(items))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the page: each column's heading and class, and rows of cells, which are text that
    is escaped or `Markup`. `anchors` are the ids of the rows, or none at all; with words to `fold`
    it is folded under them."""

    headings: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Any]]
    empty: str
    anchors: Sequence[str]
    fold: str


def table(
    rows: Sequence[Mapping[Any, Any]],
    *,
    empty: str = "There are no rows.",
    anchors: Sequence[str] = (),
    fold: str = "",
) -> Table:
    """A table from rows by column, whose names are written as the page writes them; a column
    without any value is left out."""
    cells = {
        name: [
            row[name] if isinstance(row.get(name), Markup) else text(row.get(name)) for row in rows
        ]
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    shown = {str(name): own for name, own in cells.items() if set(own) != {EMPTY}}
    return Table(
        headings=[(heading(name), _column_class(own)) for name, own in shown.items()],
        rows=list(map(list, zip(*shown.values(), strict=True))),
        empty=empty,
        anchors=anchors,
        fold=fold,
    )


#: A sentence is longer than so many characters.
_SENTENCE = 40


def _column_class(cells: Sequence[str]) -> str:
    """Flush right where all cells are figures, wide where one is a sentence."""
    if is_figures(cells):
        return "number"
    return "long" if any(len(Markup(cell).striptags()) > _SENTENCE for cell in cells) else ""


def heading(column: str) -> str:
    """'gateway ms' as the page writes it: 'Gateway (ms)'."""
    words, _, unit = column.rpartition(" ")
    if unit in ("s", "ms", "MiB", "GiB", "J"):
        column = f"{words} ({unit})"
    return column if column == "n" else column[:1].upper() + column[1:]


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read once; whatever is not there is empty, whatever is damaged is noted."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_run(self.folder)

    def note(self, sentence: str) -> None:
        """Remember what could not be read, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_object(self.folder / "manifest.json", note=self.note)

    @cached_property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Manifests of the parts by notebook; a part without one was interrupted."""
        return {
            path.name: read_object(path / "manifest.json", note=self.note)
            for path in part_folders(self.folder)
        }

    @cached_property
    def verdict(self) -> dict[str, Any]:
        return read_object(self.folder / "verdict.json", note=self.note)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table with all columns of its schema and the name of the notebook, '' where none
        is known."""
        return {name: self._table(name) for name in TABLES}

    def _table(self, name: str) -> pd.DataFrame:
        rows = complete(name, run_table(self.folder, name, note=self.note))
        known = rows["notebook"].fillna("") if "notebook" in rows else ""
        return rows.assign(notebook=known, case_id=rows["case_id"].fillna(""))

    @cached_property
    def inner(self) -> list[Run]:
        """Runs whose folders lie in this one's: on a simulated card beside this machine's."""
        folders = sorted(path.parent for path in self.folder.glob("*/manifest.json"))
        return [Run(folder) for folder in folders if (folder / "parts").is_dir()]

    @cached_property
    def cases(self) -> pd.DataFrame:
        """All cases; those that are invalid without their times, which `tables` keep."""
        return valid_times(self.tables["cases"], self.tables["cases"])

    @cached_property
    def trials(self) -> pd.DataFrame:
        """All trials, in the same way."""
        return valid_times(self.tables["trials"], self.tables["cases"])

    @property
    def name(self) -> str:
        """The run's own name, else its folder's."""
        return text(self.manifest.get("run_id"), empty=self.folder.name)

    def origin(self, key: str) -> Any:
        """A value of the run's manifest, or of the first part that knows it."""
        known = (manifest.get(key) for manifest in (self.manifest, *self.parts.values()))
        return next((value for value in known if not is_missing(value)), None)

    @property
    def params(self) -> dict[str, Any]:
        """What was asked of the run, else of its parts."""
        given = dict(self.manifest.get("params") or {})
        if not given:
            for part in self.parts.values():
                given |= part.get("params") or {}
        return given
