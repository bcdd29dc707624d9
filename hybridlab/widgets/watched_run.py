"""A whole run from one cell: in a process of its own, its progress drawn by the cell that waits.

Front ends do not all draw what a thread sends, so the run is what moves aside. The kernel's
interrupt stops the run, which still writes its report and can be resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from hybridlab.errors import UnavailableError
from hybridlab.experiments.run_progress import Progress
from hybridlab.reporting.palette import COLORBLIND
from hybridlab.units import counted, format_seconds

R = TypeVar("R")

TICK_S = 0.5
#: Before this share of a run is done nothing is said of the time left.
LEAST_SHARE = 0.02
#: How long an interrupted run may take to write what it has.
CLOSING_S = 120.0


def watched_run(run: Callable[..., R], *args: Any, optional: bool = False, **options: Any) -> R:
    """`run(*args, listener=..., **options)`, as of `hybridlab.run`, with its progress shown.

    Raises what the run raises. With `optional`, what this machine lacks for it is said instead, and
    None returned.
    """
    from IPython.display import HTML, display

    shown = display(HTML("<div>starting</div>"), display_id=True)
    try:
        return _watch(run, args, options, lambda html: shown.update(HTML(html)))
    except UnavailableError as error:
        if not optional:
            raise
        shown.update(HTML(f"<div><b>Left out:</b> {escape(str(error))}</div>"))
        return None  # type: ignore[return-value]


def _watch(run: Callable[..., R], args: Any, options: Any, draw: Callable[[str], None]) -> R:
    context = multiprocessing.get_context("spawn")  # a fork would take the kernel's threads along
    here, there = context.Pipe(duplex=False)
    work = context.Process(target=_work, args=(there, run, args, options), daemon=True)
    begun_s = measuring_s = time.monotonic()
    work.start()
    there.close()
    state = Progress([])
    try:
        while True:
            if here.poll(TICK_S):
                told = here.recv()
                if not isinstance(told, Progress):
                    return cast(R, _result(told, draw, state, time.monotonic() - begun_s))
                state = told
            if not state.current:  # what it takes to fetch says nothing of the notebooks
                measuring_s = time.monotonic()
            before_s = measuring_s - begun_s
            draw(progress_html(state, time.monotonic() - begun_s, before_s=before_s))
    except EOFError:
        work.join()
        raise RuntimeError(f"the run's process ended with exit code {work.exitcode}") from None
    except KeyboardInterrupt:
        if work.pid is not None and work.is_alive():
            os.kill(work.pid, signal.SIGINT)
        work.join(CLOSING_S)
        draw(f"{progress_html(state, time.monotonic() - begun_s)}<div><b>interrupted</b></div>")
        raise
    finally:
        here.close()
        if work.is_alive():
            work.join(TICK_S)
            work.terminate()


def _result(told: Any, draw: Callable[[str], None], state: Progress, seconds: float) -> Any:
    """What the run returned; its error is raised here."""
    ok, value = told
    if not ok:
        raise value
    done = replace(state, finished=len(state.notebooks), current="", cases_total=0)
    draw(progress_html(done, seconds))
    return value


def _work(pipe: Connection, run: Callable[..., Any], args: Any, options: Any) -> None:
    """In the run's process: progress as it comes, then (True, result) or (False, error)."""

    def once(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # the kernel's whole group may be interrupted, too
        raise KeyboardInterrupt

    def tell(state: Progress) -> None:
        pipe.send(replace(state, listener=_nobody))

    signal.signal(signal.SIGINT, once)
    try:
        result = True, run(*args, listener=tell, **options)
    except Exception as error:
        result = False, _sendable(error)
    pipe.send(result)


def _nobody(_: Progress) -> None:
    """A listener that travels."""


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# ------------------------------------------------------------------------------------ the picture


def progress_html(state: Progress, seconds: float, *, before_s: float = 0.0) -> str:
    """Which notebook is at work, a bar over all of them, and about how long is left, after so many
    seconds of which `before_s` came before the first notebook; of a download what is left of it."""
    share = state.share
    words = f"{state.finished} of {counted(len(state.notebooks), 'notebook')}"
    if state.current:
        words += f" · {state.current}"
    if state.cases_total:
        words += f", {state.cases_done} of {state.cases_total} cases"
    if state.fetching is not None:
        words += f" · {state.fetching.words()}"
    if kept := list(state.weights.values()).count(0.0):
        words += f" · {kept} of them kept from before"
    time_words = f"{format_seconds(seconds)} so far"
    if share >= 1:
        time_words = f"done in {format_seconds(seconds)}"
    elif share >= LEAST_SHARE:
        left = left_words((seconds - before_s) * (1 - share) / share)
        basis = f"by the seconds of {state.like}" if state.like else "all notebooks counted alike"
        time_words += f", {'about' if state.like else 'roughly'} {left} left ({basis})"
    return (
        f"<div>{escape(words)} · {escape(time_words)}</div>"
        f'<div role="progressbar" aria-valuenow="{100 * share:.0f}" style="max-width:640px;height:'
        f'10px;border:1px solid #8888"><div style="height:100%;width:{share:.1%};'
        f'background:{COLORBLIND[0]}"></div></div>'
    )


def left_words(seconds: float) -> str:
    """'1 min' or '12 min': never more exact than such a guess is."""
    return f"{max(1, round(seconds / 60))} min"
