"""Progress of a run, on a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hybridlab.cli import progress
from hybridlab.experiments.run_progress import Progress
from hybridlab.models import fetch_progress
from hybridlab.models.fetch_progress import FetchProgress


def test_bars_are_nested_and_the_inner_one_begins_anew() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    with progress.bars(console) as drawn:
        state = Progress(["00_setup", "01_voxtral_alone"])
        state.listener = progress.bar_listener(drawn)
        state.tell(current="00_setup")
        outer, inner = drawn.tasks
        assert inner.total is None  # how many cases there are is not known yet
        state.tell(cases_done=1, cases_total=4)
        assert (outer.completed, inner.completed, inner.total) == (0.125, 1, 4)
        state.tell(finished=1, cases_done=0, cases_total=0)
        assert outer.completed == 0.5
        state.tell(current="01_voxtral_alone")
        (inner,) = drawn.tasks[1:]
        assert (outer.completed, inner.completed, inner.total) == (0.5, 0, None)
        assert inner.description.strip() == "01_voxtral_alone"
        state.tell(finished=2)
        assert outer.finished


def test_weights_have_a_bar_of_their_own_until_they_are_here() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    with progress.bars(console) as drawn:
        state = Progress(["00_setup"])
        state.listener = progress.bar_listener(drawn)
        state.tell(fetching=FetchProgress("someone/model", 3_200_000_000, 9_350_000_000, 1e7))
        _, weights = drawn.tasks
        assert weights.completed == 3_200_000_000
        assert weights.fields["count"] == "3.20 GB of 9.35 GB"
        assert weights.description.strip() == "weights, 10 MB/s"
        waiting = FetchProgress("someone/model", 3_200_000_000, 9_350_000_000, 0.0, "asked to wait")
        state.tell(fetching=waiting)
        assert weights.description.strip() == "weights wait"
        state.tell(fetching=None)
        assert len(drawn.tasks) == 1


def test_a_download_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.fetching() as listener:
        for done in (1, 2, 4):
            listener(FetchProgress("someone/model", done * 10**9, 4 * 10**9, 5e7))
    assert capsys.readouterr().err.splitlines() == [
        "fetching someone/model: 1.00 GB of 4.00 GB, 50 MB/s, 60 s left",
        "fetched 4.00 GB of weights",
    ]


def test_a_download_that_waits_says_why_before_its_next_line_is_due(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(fetch_progress.time, "monotonic", lambda: next(now))
    said: list[str] = []
    listener = fetch_progress.line_printer(said.append)
    for note in ("", "asked to wait", "asked to wait", "asked to wait"):
        listener(FetchProgress("someone/model", 0, 10**9, 0.0, note))
    assert said == [
        "fetching someone/model: 0 B of 1.00 GB",
        "fetching someone/model: 0 B of 1.00 GB; asked to wait",
    ]


def test_a_rate_is_told_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came in a quarter of a second says nothing of an hour."""
    now = iter([0.0, 0.25, 2.0, 30.0])
    monkeypatch.setattr(fetch_progress.time, "monotonic", lambda: next(now))
    meter = fetch_progress.RateMeter()
    assert [meter.rate(done) for done in (5_000, 20_000_000, 20_000_000)] == [0.0, 1e7, 0.0]


def test_a_pipe_gets_a_line_for_each_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    state = Progress(["00_setup", "07_verdict"])
    with progress.progress() as state.listener:
        state.tell(current="00_setup")
        state.tell(cases_done=1, cases_total=2)
        state.tell(current="07_verdict", finished=1)
    assert capsys.readouterr().err.splitlines() == ["[1/2] 00_setup", "[2/2] 07_verdict"]
