from __future__ import annotations

import fcntl
import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybridlab import MEASUREMENT_VERSION
from hybridlab.config.params import SequentialParams
from hybridlab.errors import RunFolderError
from hybridlab.results.manifest import Status, read_manifest
from hybridlab.results.reader import read_rows, run_table
from hybridlab.results.run_folder import NotebookRun, open_part
from hybridlab.results.schema import COMMON_COLUMNS, TABLES, columns, required_columns
from hybridlab.results.writer import TableWriter
from hybridlab.simulation import NO_TIMES

COMMON = {"run_id": "r", "device": "cpu", "evidence": "measured", "memory_limited": False}
CASE = {
    **{name: None for name in required_columns("cases") if name not in COMMON_COLUMNS},
    "case_id": "a",
    "experiment": "strategy_comparison",
    "status": "ok",
}


def part(tmp_path: Path, *, device: str = "cpu") -> NotebookRun:
    params = SequentialParams.from_mapping({"output_dir": str(tmp_path / "run")})
    return open_part(params, device=device)


def sample(case_id: str, n_bytes: float) -> dict[str, object]:
    about = {"case_id": case_id, "experiment": "strategy_comparison", "source": "rss"}
    return {**about, "t_s": 0.1, "bytes": n_bytes}


def test_rows_of_unfinished_cases_are_left_out(tmp_path: Path) -> None:
    opened = part(tmp_path)
    opened.writer.append("samples", sample("a", 1))
    opened.writer.append("samples", sample("b", 2))
    opened.writer.append("cases", CASE)
    table = opened.table("samples")
    assert list(table["bytes"]) == [1]
    common = list(COMMON_COLUMNS)
    assert list(table.columns[: len(common)]) == common


def test_rows_of_a_simulated_card_have_no_times(tmp_path: Path) -> None:
    simulated = part(tmp_path, device="simulated:t4").writer
    row = simulated.append("cases", {**CASE, "load_s": 1.5, "throughput_rps": 2.0, "audio_s": 30.0})
    assert (row["load_s"], row["throughput_rps"], row["audio_s"]) == (None, None, 30.0)
    assert (row["evidence"], row["times_reason"]) == ("simulated", NO_TIMES)
    simulated.append("samples", sample("a", 1))
    assert not (part(tmp_path).folder / "samples.jsonl").exists()
    measured = part(tmp_path).writer.append("cases", {**CASE, "load_s": 1.5})
    assert (measured["load_s"], measured["evidence"]) == (1.5, "measured")


def test_not_a_number_becomes_an_empty_value(tmp_path: Path) -> None:
    opened = part(tmp_path)
    opened.writer.append("cases", {**CASE, "load_s": float("nan")})
    row = json.loads((opened.folder / "cases.jsonl").read_text())
    assert row["load_s"] is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"wer": 0.1}, "cases has no column wer"),
        ({"load_s": "fast"}, r"cases.load_s = 'fast' is str, not float"),
        ({"n_trials": True}, "n_trials = True is bool"),
        ({"status": None}, "status = None"),
    ],
)
def test_a_row_that_is_not_the_tables_is_refused(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    opened = part(tmp_path)
    with pytest.raises(ValueError, match=said):
        opened.writer.append("cases", {**CASE, **changed})
    assert not (opened.folder / "cases.jsonl").exists()
    lacking = {name: value for name, value in CASE.items() if name != "status"}
    with pytest.raises(ValueError, match="lacks status"):
        opened.writer.append("cases", lacking)


def test_every_column_has_a_type_and_a_sentence() -> None:
    for known in map(columns, TABLES):
        assert list(known)[: len(COMMON_COLUMNS)] == list(COMMON_COLUMNS)
        for column in known.values():
            assert column.kind
            assert len(column.description) > 3
            assert not column.name.endswith("_bytes") or column.unit == "bytes"


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert read_rows(path) == [{"a": 1}]
    path.write_text('{"a": 1}\nbroken\n{"a": 2}\n')
    with pytest.raises(RunFolderError, match="line 2 is damaged"):
        read_rows(path)
    notes: list[str] = []
    assert read_rows(path, note=notes.append) == [{"a": 1}, {"a": 2}]
    assert notes == ["x.jsonl: 1 of 3 lines are damaged and were left out."]
    path.write_text('{"a": "one line\u2028for JSON"}\n')
    assert len(read_rows(path)) == 1


def test_a_completed_part_is_never_overwritten(tmp_path: Path) -> None:
    part(tmp_path).close("completed")
    with pytest.raises(RunFolderError, match="never"):
        part(tmp_path)


def test_manifest_says_where_it_comes_from(tmp_path: Path) -> None:
    opened = part(tmp_path)
    opened.close("completed")
    manifest = read_manifest(opened.folder)
    assert manifest["status"] == "completed"
    assert manifest["measurement_version"] == MEASUREMENT_VERSION
    assert manifest["params"]["trials"] == 4
    assert manifest["versions"]["torch"]
    assert manifest["machine"]["cores"] >= 1


@pytest.mark.parametrize("status", ["completed", "failed", "skipped"])
def test_a_part_that_ends_leaves_parquet(tmp_path: Path, status: Status) -> None:
    opened = part(tmp_path)
    opened.writer.append("cases", CASE)
    assert not list(opened.run_dir.glob("*.parquet"))
    opened.close(status)
    shutil.rmtree(opened.run_dir / "parts")
    (row,) = run_table(opened.run_dir, "cases").to_dict("records")
    assert (row["case_id"], row["notebook"]) == (CASE["case_id"], "04_sequential")
    assert list(run_table(opened.run_dir, "trials")) == [*required_columns("trials"), "notebook"]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="does not hold a run"):
        run_table(tmp_path, "cases")


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    writer = TableWriter(Path("/dev/full"), COMMON)
    with pytest.raises(RunFolderError, match="cannot write"):
        writer.append("samples", sample("a", 1))


def test_a_torn_row_goes_when_the_next_one_is_written(tmp_path: Path) -> None:
    opened = part(tmp_path)
    opened.writer.append("samples", sample("a", 1))
    path = opened.folder / "samples.jsonl"
    path.write_bytes(path.read_bytes() + b'{"case_id": "b", "by')
    opened.writer.append("samples", sample("c", 3))
    assert [row["case_id"] for row in read_rows(path)] == ["a", "c"]


@contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    """A limit on the size of files stands for a disk that fills: a row is written in part."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_fills_leaves_whole_rows(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, COMMON)
    with disk_of(1000), pytest.raises(RunFolderError, match="free some space and repeat with"):
        for number in range(100):
            writer.append("samples", sample(f"case-{number}", number))
    path = tmp_path / "samples.jsonl"
    assert 2 <= len(read_rows(path)) < 100
    assert path.read_bytes().endswith(b"}\n")
    writer.append("samples", sample("after", 1))
    assert read_rows(path)[-1]["case_id"] == "after"


def test_two_runs_never_write_one_part(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "parts" / "04_sequential"
    folder.mkdir(parents=True)
    with open(folder / "lock", "ab+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="being written by another run"):
            part(tmp_path)
    assert part(tmp_path).folder == folder  # the lock has gone with its file
    with open(folder / "lock", "ab+") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
