"""A run from one cell: what is drawn meanwhile, what comes back, and what an interrupt does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.experiments import run_progress
from hybridlab.experiments.run_progress import Progress, weights_of
from hybridlab.models.fetch_progress import FetchProgress
from hybridlab.results.manifest import write_json
from hybridlab.widgets.watched_run import left_words, progress_html, watched_run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The HTML that a notebook would show, in its order."""
    seen: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            seen.append(html.data)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    return seen


def fine(words: str, listener: Callable[[Progress], None]) -> tuple[str, int]:
    for done in range(3):
        listener(Progress(["00", "02"], current="02", finished=1, cases_done=done, cases_total=2))
    return words, os.getpid()


def lacking(listener: Any) -> None:
    raise UnavailableError("no CUDA <here>")


def wrong(listener: Any) -> None:
    raise ParameterError("trials = 0")


def gone(listener: Any) -> None:
    os._exit(3)


def waiting(path: Path, listener: Callable[[Progress], None]) -> None:
    try:
        listener(Progress(["00"], current="00"))
        path.write_text("begun")
        time.sleep(60)
    finally:
        path.write_text("closed")


def test_a_run_is_drawn_and_its_result_comes_back_from_another_process(drawn: list[str]) -> None:
    words, pid = watched_run(fine, "hello")
    assert words == "hello" and pid != os.getpid()
    assert any("1 of 2 notebooks · 02, 2 of 2 cases" in html for html in drawn)
    assert "2 of 2 notebooks · done in" in drawn[-1]


def test_an_error_is_the_callers_and_a_lack_may_be_left_out(drawn: list[str]) -> None:
    with pytest.raises(ParameterError, match="trials = 0"):
        watched_run(wrong)
    with pytest.raises(UnavailableError):
        watched_run(lacking)
    assert watched_run(lacking, optional=True) is None
    assert drawn[-1] == "<div><b>Left out:</b> no CUDA &lt;here&gt;</div>"
    with pytest.raises(RuntimeError, match="exit code 3"):
        watched_run(gone)


def test_an_interrupt_lets_the_run_close_what_it_has(drawn: list[str], tmp_path: Path) -> None:
    path = tmp_path / "state"

    def interrupt() -> None:
        while not path.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        watched_run(waiting, path)
    assert path.read_text() == "closed"
    assert "interrupted" in drawn[-1]


def test_minutes_left_are_the_time_so_far_by_the_share_that_is_done() -> None:
    assert "left" not in progress_html(Progress(["00", "02"]), 100.0)
    half = progress_html(Progress(["00", "02"], finished=1), 600.0)
    assert "10 min 00 s so far, roughly 10 min left (all notebooks counted alike)" in half
    quarter = Progress(["00", "02"], cases_done=1, cases_total=2)
    assert "roughly 30 min left" in progress_html(quarter, 600.0)
    assert left_words(1.0) == "1 min"


def test_a_notebook_counts_by_its_seconds_in_an_earlier_run() -> None:
    state = Progress(["00", "05"], finished=1, weights={"00": 60.0, "05": 540.0}, like="pocket-1")
    assert state.share == pytest.approx(0.1)
    shown = progress_html(state, 600.0, before_s=540.0)  # a download took most of it
    assert "about 9 min left (by the seconds of pocket-1)" in shown
    kept = Progress(["00", "05"], finished=1, weights={"00": 0.0, "05": 1.0})
    assert kept.share == 0.0
    assert "1 of 2 notebooks · 1 of them kept from before · " in progress_html(kept, 1.0)
    assert Progress(["00"], finished=1, weights={"00": 0.0}).share == 1.0


def test_weights_are_those_of_the_newest_run_of_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_progress, "default_outputs", lambda: tmp_path)
    assert weights_of(["00", "02"], "pocket", kept=()) == ({"00": 1.0, "02": 1.0}, "")
    for name, preset, ended, seconds in (
        ("old", "pocket", "2026-01-01", {"00": 5.0, "02": 5.0}),
        ("new", "pocket", "2026-01-02", {"00": 10.0, "02": 30.0}),
        ("other", "option-a", "2026-01-03", {"00": 7.0}),
        ("new/t4-simulated", "t4-simulated", "2026-01-02", {"02": 50.0}),
    ):
        (tmp_path / name).mkdir()
        outcomes = {one: {"status": "completed", "seconds": s} for one, s in seconds.items()}
        outcomes["04"] = {"status": "failed", "seconds": 999.0}
        manifest = {"preset": preset, "ended": ended, "notebooks": outcomes}
        write_json(tmp_path / name / "manifest.json", manifest)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text('{"preset":')
    done = {"00": {"status": "completed", "seconds": 1.0}}
    for name, changed in (("endless", {"ended": None}), ("listed", {"notebooks": ["00"]})):
        (tmp_path / name).mkdir()
        damaged = {"preset": "pocket", "ended": "2026-01-09", "notebooks": done} | changed
        write_json(tmp_path / name / "manifest.json", damaged)
    names = ["00", "02", "04"]
    assert weights_of(names, "pocket", kept={"00"}) == ({"00": 0.0, "02": 30.0, "04": 20.0}, "new")
    assert weights_of(["02"], "t4-simulated", kept=()) == ({"02": 50.0}, "t4-simulated")


def test_while_weights_are_fetched_gigabytes_and_minutes_left_are_said() -> None:
    state = Progress(["00"], fetching=FetchProgress("someone/model", 10**9, 9 * 10**9, 5e7))
    shown = progress_html(state, 20.0)
    assert "fetching someone/model: 1.00 GB of 9.00 GB, 50 MB/s, 2 min 40 s left" in shown
