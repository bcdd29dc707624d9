"""One notebook's share of a run: its folder, its tables, its manifest.

A run folder holds one part per notebook (`parts/<notebook>/`), so that a notebook run on its own, a
batch and a resumed batch all write the same thing.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab import MEASUREMENT_VERSION
from hybridlab.config.params import Params
from hybridlab.errors import RunFolderError
from hybridlab.results.manifest import (
    Status,
    now,
    origin,
    params_hash,
    read_manifest,
    write_json,
)
from hybridlab.results.reader import finished_rows, part_folders, read_rows, write_parquet
from hybridlab.results.writer import TableWriter
from hybridlab.simulation import evidence
from hybridlab.units import MIB, format_bytes

if TYPE_CHECKING:
    import pandas as pd

LEAST_FREE_DISK_BYTES = 200 * MIB
#: What the folders are called that live notebooks share, before their time.
LIVE = "live"


@dataclass(kw_only=True)
class NotebookRun:
    """One notebook's share of a run: its folder, its tables, its manifest."""

    notebook: str
    run_dir: Path
    params: Params
    device: str
    started: str = ""
    #: What else its manifest says: the card's readings (`gpu`), the hashes of its clips (`audio`),
    #: and what could not be used of the reader's audio, line by line (`audio_left_out`).
    inputs: dict[str, Any] = field(default_factory=dict)
    #: The manifest of an earlier try whose rows are gone on with; empty where there is none.
    earlier: dict[str, Any] = field(default_factory=dict)
    #: Where rows of other parameters were moved to; None where there were none.
    replaced: Path | None = None

    @property
    def earlier_words(self) -> str:
        """What becomes of rows that were there before; '' where nothing must be said."""
        if self.replaced is not None:
            return f"measured before with other parameters: those rows are now in {self.replaced}"
        if self.earlier.get("status") != "completed":
            return ""
        return (
            f"measured before with these parameters in {self.run_dir}: only invalid and failed "
            "cases are run again; another output_dir measures all anew"
        )

    @property
    def folder(self) -> Path:
        return self.run_dir / "parts" / self.notebook

    @property
    def figures(self) -> Path:
        return self.run_dir / "figures"

    @property
    def writer(self) -> TableWriter:
        return TableWriter(
            self.folder,
            {
                "run_id": self.run_dir.name,
                "device": self.device,
                "evidence": evidence(self.device),
                "memory_limited": False,
            },
        )

    def table(self, name: str) -> pd.DataFrame:
        """The rows so far. Rows of a case that never finished are left out."""
        return finished_rows(self.folder, name)

    def finished_cases(self) -> dict[str, dict[str, Any]]:
        """The `cases` rows by id: what a resumed run need not repeat."""
        return {row["case_id"]: row for row in read_rows(self.folder / "cases.jsonl")}

    def note(self, status: Status, reason: str = "") -> None:
        """Write the part's manifest; one that says 'running' was interrupted."""
        write_json(
            self.folder / "manifest.json",
            {
                **origin(self.params),
                **self.inputs,
                "notebook": self.notebook,
                "run_id": self.run_dir.name,
                "status": status,
                "reason": reason,
                "device": self.device,
                "started": self.started,
                "ended": now(),
            },
        )

    def close(self, status: Status = "completed", reason: str = "") -> None:
        """End the part: its manifest, and the run's tables so far as Parquet, whatever ran the
        notebook."""
        self.note(status, reason)
        write_parquet(self.run_dir)
        _release(self.folder)

    def skip(self, reason: str) -> None:
        """Record that this notebook cannot run here, and why."""
        self.close("skipped", reason)


def open_part(
    params: Params, *, device: str, inputs: Mapping[str, Any] | None = None
) -> NotebookRun:
    """Open (or go on with) this notebook's part of the run folder that `output_dir` names.

    Without an `output_dir` a headless notebook gets `outputs/<notebook>-<time>/`, and a live one
    the folder that it shares with the others of the day: there a part of the same parameters is
    gone on with, so that what is complete is not measured again, and one of others is moved into
    `replaced/`. In a folder that was named a complete part is refused (`RunFolderError`). One that
    only reads what the others measured is made anew.
    """
    live = not params.output_dir and not params.headless
    run_dir = Path(params.output_dir) if params.output_dir else _default_folder(params, device)
    part = NotebookRun(
        notebook=params.notebook,
        run_dir=run_dir.expanduser().absolute(),
        params=params,
        device=device,
        started=now(),
        inputs=dict(inputs or {}),
    )
    before = read_manifest(part.folder)
    if before.get("status") == "completed" and not live:
        raise RunFolderError(
            f"{part.folder} holds a completed run; choose another output_dir (it is never "
            "overwritten)"
        )
    check_space(part.run_dir)
    for folder in (part.folder, part.figures):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(part.folder)
    if before.get("status") == "completed" and not params.measures:
        _empty(part.folder)
    elif live and before and not _is_same(before, params):
        part.replaced = _set_aside(part)
    else:
        part.earlier = before
    part.note("running")
    return part


def _default_folder(params: Params, device: str) -> Path:
    if params.headless:
        return new_run_folder(params.notebook)
    shared = sorted(default_outputs().glob(f"{LIVE}-{datetime.now():%Y%m%d}-*"))
    if shared and _is_of(shared[-1], device):
        return shared[-1]
    return new_run_folder(LIVE)


def _is_of(run_dir: Path, device: str) -> bool:
    """Whether all parts of a run are of this device."""
    manifests = map(read_manifest, part_folders(run_dir))
    return all(part.get("device", device) == device for part in manifests)


def _is_same(before: Mapping[str, Any], params: Params) -> bool:
    """Whether a part was measured by the same method under the same parameters."""
    return (
        before.get("params_hash") == params_hash(params.model_dump())
        and before.get("measurement_version") == MEASUREMENT_VERSION
    )


def _set_aside(part: NotebookRun) -> Path:
    """Move a part's rows and figures out of the run, beside it; where they are now."""
    when = f"{datetime.now():%Y%m%d-%H%M%S}"
    target = part.run_dir / "replaced" / f"{part.notebook}-{when}"
    target.mkdir(parents=True)
    figures = list(part.figures.glob(f"{part.notebook[:2]}-*"))
    for path in (*part.folder.iterdir(), *figures):
        if path.name != LOCK:
            path.rename(target / path.name)
    return target


def _empty(folder: Path) -> None:
    """Remove what a part says, not the file that locks it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


#: The file that locks a part while it is written.
LOCK = "lock"
#: Folders that this process writes, with the open files that lock them.
_CLAIMED: dict[Path, FileIO] = {}


def _claim(folder: Path) -> None:
    """Refuse a part that another living process is writing; a lock ends with its part, or with its
    process."""
    if folder in _CLAIMED:
        return
    file = open(folder / LOCK, "ab+", buffering=0)  # noqa: SIM115 - open as long as the process
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunFolderError(
            f"{folder} is being written by another run; wait for its end or choose another "
            "output_dir"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        # a mounted drive without locks: two runs in one folder are then the reader's care
    _CLAIMED[folder] = file


def _release(folder: Path) -> None:
    """Whoever comes next may go on with it."""
    if file := _CLAIMED.pop(folder, None):
        file.close()


def check_space(folder: Path) -> None:
    """`RunFolderError` where the disk of this (perhaps future) folder has no room for a run."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_DISK_BYTES:
        raise RunFolderError(
            f"only {format_bytes(free)} are free at {existing}; a run needs "
            f"{format_bytes(LEAST_FREE_DISK_BYTES)}: free some space or choose another folder"
        )


def newest_run() -> Path:
    """The run in `default_outputs` that was written last; `RunFolderError` where there is none."""
    outputs = default_outputs()
    runs = [path.parents[1] for path in outputs.glob("*/parts/*") if path.is_dir()]
    if not runs:
        raise RunFolderError(f"{outputs} holds no run; name a run folder, or `hybridlab run` first")
    return max(runs, key=lambda folder: folder.stat().st_mtime)


def new_run_folder(name: str) -> Path:
    """`outputs/<name>-<time>`, which is not made yet."""
    return default_outputs() / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def run_of_today(name: str, values: Mapping[str, Any]) -> Path:
    """The newest `outputs/<name>-<time>` of this day whose run has these parameters, or has not
    begun; else a new one."""
    for folder in sorted(default_outputs().glob(f"{name}-{datetime.now():%Y%m%d}-*"), reverse=True):
        if not has_run(folder) or read_manifest(folder).get("params_hash") == params_hash(values):
            return folder
    return new_run_folder(name)


def has_run(folder: Path) -> bool:
    """Whether a run has begun in this folder, and can be gone on with."""
    return bool(read_manifest(folder))


def default_outputs() -> Path:
    """`outputs/` of the project: beside the nearest pyproject.toml, else under this folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file():
            return folder / "outputs"
    return Path.cwd() / "outputs"
