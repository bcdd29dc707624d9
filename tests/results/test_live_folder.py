"""Which folder a live notebook writes into: one for the notebooks of a day, and never over rows."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hybridlab.config.params import BesideParams, Params, SequentialParams, VerdictParams
from hybridlab.errors import RunFolderError
from hybridlab.results import run_folder
from hybridlab.results.manifest import Status, params_hash, write_json
from hybridlab.results.reader import part_folders
from hybridlab.results.run_folder import NotebookRun, has_run, open_part, run_of_today


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes with each look at the clock, and runs lie in a folder of the test's own."""
    seconds = itertools.count()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 1, 31, 12) + timedelta(seconds=next(seconds))

    monkeypatch.setattr(run_folder, "datetime", Clock)
    monkeypatch.setattr(run_folder, "default_outputs", lambda: tmp_path)


def ended(model: type[Params], status: Status = "completed", **values: Any) -> NotebookRun:
    device = values.pop("device_name", "cpu")
    part = open_part(model.from_mapping(values), device=device)
    part.close(status)
    return part


def test_the_notebooks_of_a_day_share_one_run() -> None:
    first = ended(BesideParams)
    assert first.run_dir.name == "live-20260131-120001"
    assert ended(SequentialParams, trials=9).run_dir == first.run_dir
    assert ended(VerdictParams).run_dir == first.run_dir


def test_what_was_measured_is_gone_on_with_and_nothing_is_lost() -> None:
    first = ended(BesideParams)
    (first.folder / "cases.jsonl").write_text('{"case_id": "a"}\n')
    again = ended(BesideParams)
    assert again.run_dir == first.run_dir and again.replaced is None
    assert again.finished_cases() == {"a": {"case_id": "a"}}
    assert "measured before with these parameters" in again.earlier_words
    assert first.earlier_words == ""
    assert ended(SequentialParams).run_dir == again.run_dir


def test_rows_of_other_parameters_are_moved_beside_the_run_with_their_figures() -> None:
    first = ended(SequentialParams)
    (first.folder / "cases.jsonl").write_text('{"case_id": "a"}\n')
    for name in ("04-lanes.png", "02-memory.png"):
        (first.figures / name).write_text(name)
    again = ended(SequentialParams, trials=9)
    assert again.run_dir == first.run_dir and again.finished_cases() == {}
    assert again.replaced is not None and str(again.replaced) in again.earlier_words
    assert (again.replaced / "cases.jsonl").read_text() == '{"case_id": "a"}\n'
    assert (again.replaced / "04-lanes.png").is_file()
    assert [path.name for path in again.figures.iterdir()] == ["02-memory.png"]
    assert ended(SequentialParams, trials=9).replaced is None
    assert [path.name for path in part_folders(first.run_dir)] == ["04_sequential"]


def test_rows_of_another_version_of_the_method_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(SequentialParams)
    monkeypatch.setattr(run_folder, "MEASUREMENT_VERSION", -1)
    assert ended(SequentialParams).replaced is not None


def test_a_part_that_has_ended_is_free_for_another_kernel() -> None:
    part = ended(SequentialParams)
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab+'); "
        "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    take = [sys.executable, "-c", code, str(part.folder / "lock")]
    assert subprocess.run(take, check=False).returncode == 0
    open_part(SequentialParams(), device="cpu")
    assert subprocess.run(take, check=False, capture_output=True).returncode == 1


def test_the_verdict_is_drawn_again_where_the_rows_are() -> None:
    measured = ended(SequentialParams)
    drawn = ended(VerdictParams)
    (drawn.folder / "claims.jsonl").write_text("{}\n")
    again = ended(VerdictParams)
    assert again.run_dir == measured.run_dir
    assert not (again.folder / "claims.jsonl").exists()


def test_what_was_stopped_goes_on_in_its_run_without_a_word() -> None:
    first = ended(SequentialParams, "failed")
    again = ended(SequentialParams, "failed")
    assert again.run_dir == first.run_dir and again.earlier_words == ""


def test_rows_of_two_devices_do_not_meet() -> None:
    first = ended(BesideParams)
    assert ended(SequentialParams, device_name="simulated:t4").run_dir != first.run_dir


def test_the_start_notebook_goes_on_with_its_run_of_the_day(tmp_path: Path) -> None:
    first = run_of_today("start", {"trials": 1})
    assert first.name == "start-20260131-120001" and not has_run(first)
    first.mkdir()
    assert run_of_today("start", {"trials": 2}) == first  # nothing but a simulated card is in it
    write_json(first / "manifest.json", {"params_hash": params_hash({"trials": 1})})
    assert has_run(first)
    assert run_of_today("start", {"trials": 1}) == first
    assert run_of_today("start", {"trials": 2}) != first
    yesterday = tmp_path / "start-20260130-120000"
    first.rename(yesterday)
    assert run_of_today("start", {"trials": 1}) != yesterday


def test_headless_and_named_runs_are_as_they_were(tmp_path: Path) -> None:
    ended(BesideParams)
    headless = ended(SequentialParams, headless=True)
    assert headless.run_dir.name.startswith("04_sequential-")
    named = {"output_dir": str(tmp_path / "mine")}
    assert ended(VerdictParams, **named).run_dir.name == "mine"
    with pytest.raises(RunFolderError, match="never overwritten"):
        ended(VerdictParams, **named)
