"""Progress of a run on stderr: a bar over notebooks and one over the current one's cases, with the
time left; a line as each notebook begins where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from hybridlab.cli import printing
from hybridlab.units import format_decimal_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from hybridlab.experiments.run_progress import Progress
    from hybridlab.models.fetch_progress import FetchProgress

Listener = Callable[["Progress"], None]


@contextmanager
def progress() -> Iterator[Listener]:
    """A listener for `run_suite`."""
    console = printing.console(stderr=True)
    if console.color_system is None:
        yield line_listener(console)
        return
    with bars(console) as drawn:
        yield bar_listener(drawn)


@contextmanager
def fetching() -> Iterator[Callable[[FetchProgress], None]]:
    """A listener for `provision.fetch`."""
    from hybridlab.models.fetch_progress import line_printer

    console = printing.console(stderr=True)
    if console.color_system is None:
        yield line_printer(partial(console.print, soft_wrap=True))
        return
    with fetch_bars(console) as drawn:
        yield fetch_listener(drawn)


def fetch_bars(console: Console) -> Bars:
    """One bar over the bytes of a download, with the rate and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), console=console, expand=True
    )


def fetch_listener(drawn: Bars) -> Callable[[FetchProgress], None]:
    task: list[TaskID] = []

    def listen(state: FetchProgress) -> None:
        if not task:
            task.append(drawn.add_task("", total=float(state.total_bytes)))
        drawn.update(task[0], description=state.words(), completed=state.done_bytes)

    return listen


def line_listener(console: Console) -> Listener:
    """Prints a line as each notebook begins, and how far weights are fetched before the first."""
    from hybridlab.models.fetch_progress import line_printer

    begun: set[str] = set()
    fetched = line_printer(partial(console.print, soft_wrap=True))

    def listen(state: Progress) -> None:
        if state.fetching is not None:
            fetched(state.fetching)
        if state.current and state.current not in begun:
            begun.add(state.current)
            console.print(f"[{state.finished + 1}/{len(state.notebooks)}] {state.current}")

    return listen


def bars(console: Console) -> Bars:
    """Both bars' columns; the time left is what rich makes of the speed so far."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<27}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        expand=True,
        speed_estimate_period=3600.0,  # cases and notebooks take minutes
    )


def bar_listener(drawn: Bars) -> Listener:
    """Moves the outer bar by notebooks, the inner one by cases; the inner begins anew with each."""
    outer = drawn.add_task("notebooks", total=1.0, count="starting")
    inner: dict[str, TaskID] = {}
    weights: dict[str, TaskID] = {}

    def fetched(state: FetchProgress) -> None:
        if not weights:
            weights["fetch"] = drawn.add_task("  weights", total=1.0, count="")
        done, total = map(format_decimal_bytes, (state.done_bytes, state.total_bytes))
        rate = f", {format_decimal_bytes(state.bytes_per_s)}/s" if state.bytes_per_s else ""
        drawn.update(
            weights["fetch"],
            description=f"  weights{' wait' if state.note else rate}",
            total=float(state.total_bytes),
            completed=state.done_bytes,
            count=f"{done} of {total}",
        )

    def listen(state: Progress) -> None:
        if state.fetching is not None:
            fetched(state.fetching)
            return
        if weights:
            drawn.remove_task(weights.pop("fetch"))
        done, total, notebooks = state.cases_done, state.cases_total, len(state.notebooks)
        drawn.update(outer, completed=state.share, count=f"{state.finished}/{notebooks}")
        if state.current and state.current not in inner:
            for task in inner.values():  # a known total cannot be made an unknown one
                drawn.remove_task(task)
            inner.clear()
            inner[state.current] = drawn.add_task(f"  {state.current}", total=None, count="")
        if total:
            count = f"{done}/{total} cases"
            drawn.update(inner[state.current], total=total, completed=done, count=count)

    return listen
