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

from hybridlab.config.params import Params
from hybridlab.errors import RunFolderError
from hybridlab.results.manifest import Status, now, origin, read_manifest, write_json
from hybridlab.results.reader import finished_rows, read_rows, write_parquet
from hybridlab.results.writer import TableWriter
from hybridlab.simulation import evidence
from hybridlab.units import MIB, format_bytes

if TYPE_CHECKING:
    import pandas as pd

LEAST_FREE_DISK_BYTES = 200 * MIB


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

    def skip(self, reason: str) -> None:
        """Record that this notebook cannot run here, and why."""
        self.close("skipped", reason)


def open_part(
    params: Params, *, device: str, inputs: Mapping[str, Any] | None = None
) -> NotebookRun:
    """Open (or go on with) this notebook's part of the run folder that `output_dir` names.

    An empty `output_dir` makes `outputs/<notebook>-<time>/`. A part that is complete is never
    overwritten: `RunFolderError`.
    """
    name = params.output_dir or str(
        default_outputs() / f"{params.notebook}-{datetime.now():%Y%m%d-%H%M%S}"
    )
    part = NotebookRun(
        notebook=params.notebook,
        run_dir=Path(name).expanduser().absolute(),
        params=params,
        device=device,
        started=now(),
        inputs=dict(inputs or {}),
    )
    if read_manifest(part.folder).get("status") == "completed":
        raise RunFolderError(
            f"{part.folder} holds a completed run; choose another output_dir (it is never "
            "overwritten)"
        )
    check_space(part.run_dir)
    for folder in (part.folder, part.figures):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(part.folder)
    part.note("running")
    return part


#: Folders that this process writes, with the open files that lock them until it ends.
_CLAIMED: dict[Path, FileIO] = {}


def _claim(folder: Path) -> None:
    """Refuse a part that another living process is writing; a lock ends with its process."""
    if folder in _CLAIMED:
        return
    file = open(folder / "lock", "ab+", buffering=0)  # noqa: SIM115 - open as long as the process
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


def default_outputs() -> Path:
    """`outputs/` of the project: beside the nearest pyproject.toml, else under this folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file():
            return folder / "outputs"
    return Path.cwd() / "outputs"
