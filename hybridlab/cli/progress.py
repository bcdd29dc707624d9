"""Progress of a run: a bar over notebooks and one over the current one's cases, with the time left;
plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from hybridlab.experiments.forecast import Forecast

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from hybridlab.experiments.suite import Progress

Listener = Callable[["Progress"], None]


@contextmanager
def progress(earlier_s: dict[str, float]) -> Iterator[Listener]:
    """A listener for `run_suite`, drawing on stderr; `earlier_s` as of `earlier_seconds`."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal or console.no_color:
        yield plain_listener(earlier_s)
        return
    with bars(console) as drawn:
        yield bar_listener(drawn, earlier_s)


def left_words(seconds: float | None) -> str:
    """The time left, said no finer than it is known."""
    if seconds is None:
        return ""
    if seconds < 57.5:
        return f"about {max(5, round(seconds / 5) * 5)} s left"
    return f"about {round(seconds / 60)} min left"


def plain_listener(earlier_s: dict[str, float]) -> Listener:
    """A line as each notebook begins."""
    forecast = Forecast(notebooks=[], earlier_s=earlier_s)

    def listen(state: Progress) -> None:
        forecast.notebooks = state.notebooks
        if state.current in ("", forecast.current):
            return
        forecast.begin(state.current)
        left = left_words(forecast.left_s(0, 0))
        place = f"[{state.finished + 1}/{len(state.notebooks)}]"
        line = f"{place} {state.current:<28} {left}"
        typer.echo(line.rstrip(), err=True)

    return listen


def bars(console: Any) -> Bars:
    """Both bars' columns."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<27}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]:<17}"),
        console=console,
        expand=True,
    )


def bar_listener(drawn: Bars, earlier_s: dict[str, float]) -> Listener:
    """Moves the outer bar by notebooks, the inner one by cases; the inner begins anew with each."""
    forecast = Forecast(notebooks=[], earlier_s=earlier_s)
    outer = drawn.add_task("notebooks", total=1.0, count="starting", left="")
    inner: list[TaskID] = []

    def begin(notebook: str) -> None:
        forecast.begin(notebook)
        for task in inner:  # a bar whose total is known cannot be made one whose total is not
            drawn.remove_task(task)
        inner[:] = [drawn.add_task(f"  {notebook}", total=None, count="", left="")]

    def listen(state: Progress) -> None:
        forecast.notebooks = state.notebooks
        if state.current and state.current != forecast.current:
            begin(state.current)
        done, total, number = state.cases_done, state.cases_total, len(state.notebooks)
        share = min(done / total, 0.99) if total else 0.0
        drawn.update(
            outer,
            total=float(number),
            completed=min(state.finished + share, number),
            count=f"{state.finished}/{number}",
            left=left_words(forecast.left_s(done, total) if state.finished < number else None),
        )
        if total:
            drawn.update(inner[0], total=total, completed=done, count=f"{done}/{total} cases")

    return listen
