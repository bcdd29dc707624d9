"""Progress of a run: how long it still takes, and how that is shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hybridlab.cli import progress
from hybridlab.experiments.forecast import Forecast, earlier_seconds
from hybridlab.experiments.suite import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_comes_from_an_earlier_run_as_fast_as_this_machine_is() -> None:
    clock = Clock()
    forecast = Forecast(
        notebooks=["a", "b", "c"], earlier_s={"a": 10, "b": 40, "c": 20}, clock=clock
    )
    forecast.begin("a")
    assert forecast.left_s(0, 0) == 70
    clock.now = 20.0  # twice as long as before
    forecast.begin("b")
    assert forecast.left_s(0, 4) == 80 + 40
    clock.now += 30.0
    assert forecast.left_s(1, 4) == 50 + 40
    assert forecast.left_s(3, 4) == 10 + 40  # three of four cases in 30 s
    clock.now += 500.0
    assert forecast.left_s(1, 4) == 0 + 40  # late, but never negative


def test_without_an_earlier_run_time_left_comes_from_this_one() -> None:
    clock = Clock()
    forecast = Forecast(notebooks=["a", "b", "c"], clock=clock)
    forecast.begin("a")
    assert forecast.left_s(0, 0) is None  # nothing is known yet
    clock.now = 0.01  # completed by an earlier try: says nothing about the others
    forecast.begin("b")
    assert forecast.left_s(0, 2) is None
    clock.now += 12.0
    forecast.begin("c")
    assert forecast.left_s(0, 2) == pytest.approx(12)
    clock.now += 4.0
    assert forecast.left_s(1, 2) == pytest.approx(4)


def test_earlier_seconds_are_those_of_the_newest_completed_run(tmp_path: Path) -> None:
    def manifest(name: str, seconds: float, **changes: object) -> None:
        (tmp_path / name).mkdir()
        text = {
            "preset": "pocket",
            "status": "completed",
            "ended": name,
            "notebooks": {"00_setup": {"status": "completed", "seconds": seconds}},
        }
        (tmp_path / name / "manifest.json").write_text(json.dumps({**text, **changes}))

    manifest("1", 5.0)
    manifest("2", 6.0)
    manifest("3", 7.0, status="failed")
    manifest("4", 8.0, preset="other")
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "manifest.json").write_text("{")
    assert earlier_seconds(tmp_path, "pocket") == {"00_setup": 6.0}
    assert earlier_seconds(tmp_path, "none") == {}


def test_bars_are_nested_and_the_inner_one_begins_anew() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    with progress.bars(console) as drawn:
        state = Progress(["00_setup", "01_voxtral_alone"])
        state.listener = progress.bar_listener(drawn, {"00_setup": 30.0, "01_voxtral_alone": 120.0})
        state.tell(current="00_setup")
        outer, inner = drawn.tasks
        assert outer.fields["left"] == "about 2 min left"
        assert inner.total is None  # nobody knows yet how many cases there are
        state.tell(cases_done=1, cases_total=4)
        assert (outer.completed, inner.completed, inner.total) == (0.25, 1, 4)
        state.tell(finished=1, cases_done=0, cases_total=0)
        assert outer.completed == 1
        state.tell(current="01_voxtral_alone")
        (inner,) = drawn.tasks[1:]
        assert (outer.completed, inner.completed, inner.total) == (1, 0, None)
        assert inner.description.strip() == "01_voxtral_alone"
        state.tell(finished=2)
        assert outer.completed == 2 and outer.fields["left"] == ""


def test_a_pipe_gets_a_line_for_each_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    state = Progress(["00_setup", "07_verdict"])
    state.listener = progress.plain_listener({"00_setup": 30.0, "07_verdict": 30.0})
    state.tell(current="00_setup")
    state.tell(cases_done=1, cases_total=2)
    state.tell(current="07_verdict", finished=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["[1/2]", "[2/2]"]
    assert lines[0].endswith("about 1 min left")
