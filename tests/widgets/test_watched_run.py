"""A run from one cell: what is drawn meanwhile, what comes back, and what an interrupt does."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.experiments.notebook_runner import Progress
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
    assert "10 min 00 s so far, about 10 min left" in half
    quarter = Progress(["00", "02"], cases_done=1, cases_total=2)
    assert re.search(r"about 30 min left", progress_html(quarter, 600.0))
    assert left_words(1.0) == "1 min"
