"""Reading a run folder as far as it goes: what is damaged or gone is left out and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hybridlab.errors import RunFolderError
from hybridlab.results.reader import run_table
from hybridlab.results.schema import TABLES, required_columns
from hybridlab.units import format_bytes

#: Called with a sentence for each thing that could not be read.
Note = Callable[[str], None]


def check_folder(folder: Path) -> None:
    """`RunFolderError` where a folder holds nothing of a run."""
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not there; name a run folder, as in outputs/")
    if not (
        any(folder.glob("parts/*/"))
        or any((folder / f"{table}.parquet").is_file() for table in TABLES)
    ):
        raise RunFolderError(
            f"{folder} does not hold a run (no parts/<notebook>/ and no <table>.parquet in it); "
            "name a folder that a notebook or `hybridlab run` wrote, as in outputs/"
        )


def read_object(path: Path, note: Note) -> dict[str, Any]:
    """A JSON object, empty where the file is not there or damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # torn JSON, or bytes that are not UTF-8
        value = None
    if isinstance(value, dict):
        return value
    note(f"{_short(path)} is damaged: nothing was read from it.")
    return {}


def read_table(folder: Path, table: str, note: Note) -> pd.DataFrame:
    """A table of the run from the JSON lines of its parts, else from its Parquet file."""
    rows = _from_parts(folder, table, note)
    path = folder / f"{table}.parquet"
    if len(rows) or not path.is_file():
        return rows
    stored = _from_parquet(path, note)
    if len(stored) and (folder / "parts").is_dir():
        note(f"The parts hold no rows of {table}: they were read from {path.name}.")
    return stored.reindex(columns=[*dict.fromkeys([*rows.columns, *stored.columns])])


def _from_parts(folder: Path, table: str, note: Note) -> pd.DataFrame:
    if any(folder.glob("parts/*/")):
        return run_table(folder, table, read=lambda path: _whole_rows(path, note))
    columns = [*required_columns(table), "notebook"]
    return pd.DataFrame(columns=columns)


def _whole_rows(path: Path, note: Note) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that are whole; a last line without its end was in flight."""
    if not path.is_file():
        return []
    rows, damaged = [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and "case_id" in row:
            rows.append(row)
        elif line is not lines[-1] or line.endswith(b"\n"):
            damaged += 1
    if damaged:
        note(f"{_short(path)}: {damaged} of {len(lines)} lines are damaged and were left out.")
    return rows


def _from_parquet(path: Path, note: Note) -> pd.DataFrame:
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError):
        size = format_bytes(path.stat().st_size)
        note(f"{path.name} is damaged ({size}): nothing was read from it.")
        return pd.DataFrame()


def _short(path: Path) -> str:
    """'parts/04_sequential/trials.jsonl', or the file's name at the top of the run."""
    names = path.parts
    start = len(names) - 1 - names[::-1].index("parts") if "parts" in names else len(names) - 1
    return "/".join(names[start:])
