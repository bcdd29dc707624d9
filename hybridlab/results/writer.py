"""Rows of a run's tables as JSON lines, appended by whichever process observed them.

One line at a time with O_APPEND: a crash loses at most the row in flight.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from hybridlab.errors import RunFolderError
from hybridlab.results.schema import (
    COMMON_COLUMNS,
    TEXT_COLUMNS,
    TIMELINES,
    checked,
    without_times,
)
from hybridlab.simulation.values import installed as values_installed


class TableWriter:
    """Appends rows of a part's tables as JSON lines; picklable, safe across processes."""

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.common = dict(common)

    def with_common(self, **values: Any) -> TableWriter:
        """The same folder with more values set in every row."""
        return TableWriter(self.folder, {**self.common, **values})

    def append(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write one row and return it as written; `ValueError` where it is not the table's."""
        full: dict[str, Any] = plain({**dict.fromkeys(COMMON_COLUMNS), **self.common, **row})
        if full["evidence"] == "simulated":
            if table in TIMELINES:
                return full
            full |= without_times(table, full) | _without_texts(full)
        full = checked(table, full)
        line = json.dumps(full, ensure_ascii=False, allow_nan=False) + "\n"
        path = self.folder / f"{table}.jsonl"
        try:
            _append_whole(path, line.encode())
        except OSError as error:
            raise RunFolderError(
                f"cannot write {path}: {error.strerror}; free some space and repeat with --resume"
            ) from None
        return full


def _without_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values that replace a row's texts, where this process did not compute every value."""
    computed = values_installed() == "all"
    return {} if computed else dict.fromkeys(name for name in TEXT_COLUMNS if name in row)


def _append_whole(path: Path, line: bytes) -> None:
    """All of the line or nothing: what a full disk or a killed writer left of a row goes."""
    with open(path, "ab+", buffering=0) as file:
        end = _drop_torn_row(file)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            if path.is_file():
                file.truncate(end)
            raise


def _drop_torn_row(file: FileIO) -> int:
    """Cut a last row without its newline off; the size that is left."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return end
    file.seek(0)
    end = file.read().rfind(b"\n") + 1
    file.truncate(end)
    return end


def replace(path: Path, content: bytes) -> None:
    """Write in one step, so that a reader never sees half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None


def plain(value: Any) -> Any:
    """JSON-ready: numpy scalars become Python's, not-a-number becomes an empty value."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
