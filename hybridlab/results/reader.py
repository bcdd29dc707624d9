"""A run's tables as frames, from its JSON lines or its Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab.errors import RunFolderError
from hybridlab.results.schema import TABLES, is_time, required_columns

if TYPE_CHECKING:
    import pandas as pd


def has_clock(rows: pd.DataFrame) -> bool:
    """Whether these rows may hold times: False where all of them are of simulated cards."""
    if rows.empty or "evidence" not in rows:
        return True
    return not bool((rows["evidence"] == "simulated").all())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line cut off by a crash is dropped, a damaged one is not
    passed over."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise RunFolderError(f"{path}, line {number} is damaged; delete that line") from None
    return rows


Reader = Callable[[Path], list[dict[str, Any]]]


def finished_rows(folder: Path, table: str, *, read: Reader = read_rows) -> pd.DataFrame:
    """One part's table without rows of unfinished cases, columns as the design says."""
    import pandas as pd

    rows = read(folder / f"{table}.jsonl")
    if table not in ("cases", "claims"):
        finished = {row["case_id"] for row in read(folder / "cases.jsonl")}
        rows = [row for row in rows if row["case_id"] in finished]
    columns = list(required_columns(table))
    extra = [name for row in rows for name in row if name not in columns]
    found = pd.DataFrame(rows, columns=[*columns, *dict.fromkeys(extra)])
    # a time that is empty in all rows is not a number, instead of being nothing at all
    empty = [name for name in found if is_time(str(name)) and found[name].isna().all()]
    return found.astype(dict.fromkeys(empty, float))


def part_folders(run_dir: Path) -> list[Path]:
    """Folders of the parts in the order of the notebooks."""
    return sorted(path for path in (run_dir / "parts").glob("*") if path.is_dir())


def run_table(run_dir: Path, table: str, *, read: Reader = read_rows) -> pd.DataFrame:
    """One table over all parts of a run, with a column `notebook`; of a run that kept no parts,
    as the published ones, from its Parquet. `RunFolderError` where there is neither."""
    import pandas as pd

    folders = part_folders(run_dir)
    if not folders:
        return _stored(run_dir, table)
    found = [finished_rows(folder, table, read=read) for folder in folders]
    tables = [
        rows.assign(notebook=folder.name)
        for folder, rows in zip(folders, found, strict=True)
        if len(rows)
    ]
    return pd.concat(tables, ignore_index=True) if tables else _empty(table)


def _stored(run_dir: Path, table: str) -> pd.DataFrame:
    import pandas as pd

    if not any((run_dir / f"{name}.parquet").is_file() for name in TABLES):
        raise RunFolderError(
            f"{run_dir} does not hold a run (no parts/<notebook>/ and no <table>.parquet in it)"
        )
    path = run_dir / f"{table}.parquet"
    return pd.read_parquet(path) if path.is_file() else _empty(table)


def _empty(table: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=[*required_columns(table), "notebook"])


def write_parquet(run_dir: Path) -> list[Path]:
    """Every table over all parts as `<run>/<table>.parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = []
    for table in TABLES:
        rows = run_table(run_dir, table)
        path = run_dir / f"{table}.parquet"
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path)
        written.append(path)
    return written
