"""Which folder a live notebook writes into: one for the notebooks of a day, and never over rows."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hybridlab.config.params import BesideParams, Params, SequentialParams, VerdictParams
from hybridlab.errors import RunFolderError
from hybridlab.results import run_folder
from hybridlab.results.manifest import Status
from hybridlab.results.run_folder import NotebookRun, open_part


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


def test_a_notebook_that_was_completed_gets_a_fresh_run_and_the_others_follow() -> None:
    first, again = ended(BesideParams), ended(BesideParams)
    assert again.run_dir != first.run_dir
    assert ended(SequentialParams).run_dir == again.run_dir


def test_the_verdict_is_drawn_again_where_the_rows_are() -> None:
    measured = ended(SequentialParams)
    drawn = ended(VerdictParams)
    (drawn.folder / "claims.jsonl").write_text("{}\n")
    again = ended(VerdictParams)
    assert again.run_dir == measured.run_dir
    assert not (again.folder / "claims.jsonl").exists()


def test_what_was_stopped_goes_on_in_its_run_unless_its_parameters_are_others() -> None:
    first = ended(SequentialParams, "failed")
    assert ended(SequentialParams, "failed").run_dir == first.run_dir
    assert ended(SequentialParams, trials=9).run_dir != first.run_dir


def test_rows_of_two_devices_do_not_meet() -> None:
    first = ended(BesideParams)
    assert ended(SequentialParams, device_name="simulated:t4").run_dir != first.run_dir


def test_headless_and_named_runs_are_as_they_were(tmp_path: Path) -> None:
    ended(BesideParams)
    headless = ended(SequentialParams, headless=True)
    assert headless.run_dir.name.startswith("04_sequential-")
    named = {"output_dir": str(tmp_path / "mine")}
    assert ended(VerdictParams, **named).run_dir.name == "mine"
    with pytest.raises(RunFolderError, match="never overwritten"):
        ended(VerdictParams, **named)
