"""A run's tables as frames, from its JSON lines or its Parquet.

Damage ends the reading with one line, except where the caller takes notes: then what is damaged is
left out, and named to `note`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab.errors import RunFolderError
from hybridlab.results.schema import TABLES, is_time, required_columns
from hybridlab.results.writer import replace
from hybridlab.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd

#: Called with a sentence for each thing that could not be read.
Note = Callable[[str], None]


def check_run(folder: Path) -> None:
    """`RunFolderError` where a folder holds nothing of a run."""
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not there; name a run folder, as in outputs/")
    if not holds_run(folder):
        raise RunFolderError(
            f"{folder} does not hold a run (no parts/<notebook>/ and no <table>.parquet in it); "
            "name a folder that a notebook or `hybridlab run` wrote, as in outputs/"
        )


def holds_run(folder: Path) -> bool:
    """Whether there is a notebook's part or a table in it."""
    stored = (folder / f"{name}.parquet" for name in TABLES)
    return bool(part_folders(folder)) or any(path.is_file() for path in stored)


def has_clock(rows: pd.DataFrame) -> bool:
    """Whether these rows may hold times: False where all of them are of simulated cards."""
    if rows.empty or "evidence" not in rows:
        return True
    return not bool((rows["evidence"] == "simulated").all())


def read_object(path: Path, *, note: Note | None = None) -> dict[str, Any]:
    """A JSON object, empty where the file is not there."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # torn JSON, or bytes that are not UTF-8
        value = None
    if isinstance(value, dict):
        return value
    if note is None:
        raise RunFolderError(f"{path} is damaged; delete it and repeat with --resume")
    note(f"{_short(path)} is damaged: nothing was read from it.")
    return {}


def read_rows(path: Path, *, note: Note | None = None) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line without its end was in flight and is dropped."""
    if not path.is_file():
        return []
    rows, damaged = [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            if note is None:
                raise RunFolderError(
                    f"{path}, line {number} is damaged; delete that line"
                ) from None
            damaged += 1
    if note is not None and damaged:
        note(f"{_short(path)}: {damaged} of {len(lines)} lines are damaged and were left out.")
    return rows


def _short(path: Path) -> str:
    """'parts/04_sequential/trials.jsonl', or the file's name at the top of the run."""
    *_, parts, part, name = ("", "", *path.parts)
    return f"parts/{part}/{name}" if parts == "parts" else name


def finished_rows(folder: Path, table: str, *, note: Note | None = None) -> pd.DataFrame:
    """One part's table without rows of unfinished cases, columns as the schema says."""
    import pandas as pd

    rows = read_rows(folder / f"{table}.jsonl", note=note)
    if table not in ("cases", "claims"):
        finished = {row["case_id"] for row in read_rows(folder / "cases.jsonl", note=note)}
        rows = [row for row in rows if row["case_id"] in finished]
    columns = dict.fromkeys([*required_columns(table), *(name for row in rows for name in row)])
    found = pd.DataFrame(rows, columns=list(columns))
    # a time that is empty in all rows is not a number, instead of being nothing at all
    empty = [name for name in found if is_time(str(name)) and found[name].isna().all()]
    return found.astype(dict.fromkeys(empty, float))


def part_folders(run_dir: Path) -> list[Path]:
    """Folders of the parts in the order of the notebooks."""
    return sorted(path for path in (run_dir / "parts").glob("*") if path.is_dir())


def run_table(run_dir: Path, table: str, *, note: Note | None = None) -> pd.DataFrame:
    """One table over all parts of a run, with a column `notebook`; of a run that kept no parts, as
    the published ones (or, with notes, no rows in them), from its Parquet. `RunFolderError` for a
    folder without a run."""
    import pandas as pd

    check_run(run_dir)
    folders = part_folders(run_dir)
    parts = [
        finished_rows(folder, table, note=note).assign(notebook=folder.name) for folder in folders
    ]
    if rows := [part for part in parts if len(part)]:
        return pd.concat(rows, ignore_index=True)
    path = run_dir / f"{table}.parquet"
    found = pd.DataFrame()
    if path.is_file() and (note is not None or not folders):
        found = _stored(path, note)
    if found.empty:
        return pd.DataFrame(columns=[*required_columns(table), "notebook"])
    if note is not None and folders:
        note(f"The parts hold no rows of {table}: they were read from {path.name}.")
    return found


def _stored(path: Path, note: Note | None) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError):
        if note is None:
            raise
        size = format_bytes(path.stat().st_size)
        note(f"{path.name} is damaged ({size}): nothing was read from it.")
        return pd.DataFrame()


def write_parquet(run_dir: Path) -> None:
    """Every table over all parts as `<run>/<table>.parquet`, each in one step."""
    for table in TABLES:
        content = run_table(run_dir, table).to_parquet(index=False)
        replace(run_dir / f"{table}.parquet", content)
