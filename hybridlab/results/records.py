"""What a run writes: manifests, and tidy tables as JSON lines that end as Parquet.

A run folder holds one part per notebook (`parts/<notebook>/`), so that a notebook run on its own, a
batch and a resumed batch all write the same thing. Rows are appended one line at a time with
O_APPEND, by whichever process observed them: a crash loses at most the row in flight.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hybridlab import MEASUREMENT_VERSION
from hybridlab.config.params import Params
from hybridlab.devices.system_info import git_commit, machine, versions
from hybridlab.errors import RunFolderError
from hybridlab.simulation import NO_TIMES, evidence
from hybridlab.simulation.values import installed as values_installed
from hybridlab.units import MIB, format_bytes

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["running", "completed", "skipped", "failed", "crashed"]
CaseStatus = Literal["ok", "oom", "crashed", "timeout", "skipped", "invalid"]

#: Columns that stand first in every table.
COMMON_COLUMNS = ("run_id", "case_id", "experiment", "device", "evidence", "enveloped")
#: The least each table has; a table may have more.
TABLES: dict[str, tuple[str, ...]] = {
    "cases": (
        "strategy",
        "variant",
        "voxtral",
        "voxtral_weights",
        "voxtral_dtype",
        "whisper_size",
        "whisper_backend",
        "whisper_weights",
        "whisper_dtype",
        "status",
        "reason",
        "stable",
    ),
    "trials": (
        "strategy",
        "variant",
        "request_id",
        "clip_id",
        "audio_s",
        "latency_s",
        "first",
        "transcript",
        "reference",
        "question",
        "answer",
        "expected_answer",
        "parity",
    ),
    "spans": ("request_id", "tenant", "phase", "start_s", "end_s", "bytes"),
    "samples": ("t_s", "source", "bytes"),
    "ledgers": ("moment", "owner", "bytes", "predicted_bytes"),
    "probes": (
        "ask",
        "value",
        "repeat",
        "survived",
        "phase",
        "requested_bytes",
        "free_bytes",
        "slack_bytes",
        "message",
    ),
    "cycles": (
        "strategy",
        "remedy",
        "cycle",
        "request_id",
        "latency_s",
        "housekeeping_s",
        "same_text",
        "allocated_bytes",
        "reserved_bytes",
        "outside_bytes",
        "resident_bytes",
        "pinned_bytes",
        "peak_active_bytes",
        "peak_reserved_bytes",
        "largest_block_bytes",
        "fragmentation",
    ),
    "claims": ("claim", "expected", "measured", "verdict", "reason"),
}

#: Columns of times and of what follows from them: empty in rows of a simulated card. All others
#: that end in `_s` are times too, but for lengths of audio.
_TIME_COLUMNS = ("throughput_rps", "link_bytes_per_s", "request_energy_j", "foreign_cpu_share")
_LENGTHS_OF_AUDIO = ("audio_s",)
#: Columns of texts and of what follows from them: empty where no values were computed.
_TEXT_COLUMNS = ("transcript", "answer", "answer_tokens", "parity", "same_text")
#: Tables whose rows are points in time.
_TIMELINES = ("spans", "samples")

#: The moment of a ledger at which tenants that work at once held most together.
AT_ONCE = "both at work"

LEAST_FREE_DISK_BYTES = 200 * MIB


class TableWriter:
    """Appends rows of a part's tables as JSON lines; picklable, safe across processes."""

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.common = dict(common)

    def with_common(self, **values: Any) -> TableWriter:
        """The same folder with more values set in every row."""
        return TableWriter(self.folder, {**self.common, **values})

    def append(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Write one row and return it as written. Unknown tables and missing columns are faults."""
        full = {**dict.fromkeys(COMMON_COLUMNS), **self.common, **row}
        if full["evidence"] == "simulated":
            if table in _TIMELINES:
                return full
            full |= _without_times(table, full) | _without_texts(full)
        missing = [name for name in TABLES[table] if name not in full]
        if missing:
            raise ValueError(f"a row of {table} lacks {', '.join(missing)}")
        line = json.dumps(plain(full), ensure_ascii=False, allow_nan=False) + "\n"
        path = self.folder / f"{table}.jsonl"
        try:
            _append_whole(path, line.encode())
        except OSError as error:
            raise RunFolderError(
                f"cannot write {path}: {error.strerror}; free some space and repeat with --resume"
            ) from None
        return full


def _without_times(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values that replace a row's times, and why they are empty."""
    replaced = dict.fromkeys(filter(is_time, row))
    return {**replaced, "times_reason": NO_TIMES} if table == "cases" else replaced


def _without_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values that replace a row's texts, where this process did not compute every value."""
    computed = values_installed() == "all"
    return {} if computed else dict.fromkeys(name for name in _TEXT_COLUMNS if name in row)


def is_time(column: str) -> bool:
    """Whether a column holds times, or what follows from them."""
    return column in _TIME_COLUMNS or (column.endswith("_s") and column not in _LENGTHS_OF_AUDIO)


def has_clock(rows: pd.DataFrame) -> bool:
    """Whether these rows may hold times: False where all of them are of simulated cards."""
    if rows.empty or "evidence" not in rows:
        return True
    return not bool((rows["evidence"] == "simulated").all())


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


@dataclass(kw_only=True)
class Part:
    """One notebook's share of a run: its folder, its tables, its manifest."""

    notebook: str
    run_dir: Path
    params: Params
    device: str
    started: str = ""

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
                "enveloped": False,
            },
        )

    def table(self, name: str) -> pd.DataFrame:
        """The rows so far. Rows of a case that never finished are left out."""
        return finished_rows(self.folder, name)

    def finished_cases(self) -> dict[str, dict[str, Any]]:
        """The `cases` rows by id: what a resumed run need not repeat."""
        return {row["case_id"]: row for row in read_rows(self.folder / "cases.jsonl")}

    def close(self, status: Status = "completed", reason: str = "") -> None:
        """Write the part's manifest; a part without one was interrupted."""
        write_json(
            self.folder / "manifest.json",
            {
                **_origin(self.params),
                "notebook": self.notebook,
                "run_id": self.run_dir.name,
                "status": status,
                "reason": reason,
                "device": self.device,
                "started": self.started,
                "ended": now(),
            },
        )

    def skip(self, reason: str) -> None:
        """Record that this notebook cannot run here, and why."""
        self.close("skipped", reason)


def open_part(params: Params, *, device: str) -> Part:
    """Open (or go on with) this notebook's part of the run folder that `output_dir` names.

    An empty `output_dir` makes `outputs/<notebook>-<time>/`. A part that is complete is never
    overwritten: `RunFolderError`.
    """
    name = params.output_dir or str(
        default_outputs() / f"{params.notebook}-{datetime.now():%Y%m%d-%H%M%S}"
    )
    part = Part(
        notebook=params.notebook,
        run_dir=Path(name).expanduser().absolute(),
        params=params,
        device=device,
        started=now(),
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
    part.close("running")
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


def default_outputs() -> Path:
    """`outputs/` of the project: beside the nearest pyproject.toml, else under this folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file():
            return folder / "outputs"
    return Path.cwd() / "outputs"


# --------------------------------------------------------------------------------------- reading


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
    columns = [*COMMON_COLUMNS, *TABLES[table]]
    extra = [name for row in rows for name in row if name not in columns]
    found = pd.DataFrame(rows, columns=[*columns, *dict.fromkeys(extra)])
    # a time that is empty in all rows is not a number, instead of being nothing at all
    empty = [name for name in found if is_time(str(name)) and found[name].isna().all()]
    return found.astype(dict.fromkeys(empty, float))


def part_folders(run_dir: Path) -> list[Path]:
    """Folders of the parts in the order of the notebooks; `RunFolderError` if there is none."""
    parts = run_dir / "parts"
    folders = sorted(p for p in parts.glob("*") if p.is_dir()) if parts.is_dir() else []
    if not folders:
        raise RunFolderError(f"{run_dir} does not hold a run (no parts/<notebook>/ in it)")
    return folders


def run_table(run_dir: Path, table: str, *, read: Reader = read_rows) -> pd.DataFrame:
    """One table over all parts of a run, with a column `notebook`."""
    import pandas as pd

    tables = []
    for folder in part_folders(run_dir):
        rows = finished_rows(folder, table, read=read)
        if len(rows):
            tables.append(rows.assign(notebook=folder.name))
    if not tables:
        return pd.DataFrame(columns=[*COMMON_COLUMNS, *TABLES[table], "notebook"])
    return pd.concat(tables, ignore_index=True)


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


# ------------------------------------------------------------------------------------- manifests


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write in one step, so that a reader never sees half a manifest."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(plain(value), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`, or an empty mapping where there is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise RunFolderError(f"{path} is damaged; delete it and repeat with --resume") from None
    return dict(manifest)


def params_hash(values: Mapping[str, Any]) -> str:
    """Twelve hex digits over the resolved parameters."""
    text = json.dumps(plain(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_manifest(
    *, params: Mapping[str, Any], started: str, status: Status, artefacts: list[Path], base: Path
) -> dict[str, Any]:
    """The manifest of a whole run."""
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "run_id": base.name,
        "status": status,
        "params": dict(params),
        "params_hash": params_hash(params),
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
        "started": started,
        "ended": now(),
        "artefacts": {str(p.relative_to(base)): file_hash(p) for p in artefacts},
    }


def _origin(params: Params) -> dict[str, Any]:
    values = params.model_dump()
    return {
        "measurement_version": MEASUREMENT_VERSION,
        "params": values,
        "params_hash": params_hash(values),
        "seed": params.seed,
        "machine": machine(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
