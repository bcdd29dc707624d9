"""A running case, drawn from the main cell while its process works: memory by owner, its phase, its
latest trial, and a way to stop it. When the cell ends, a static picture takes its place."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from hybridlab.config.params import Params
from hybridlab.devices import Device
from hybridlab.experiments.case import Case, CaseObserver
from hybridlab.experiments.live_feed import LiveState
from hybridlab.reporting.labels import arm_name
from hybridlab.results.run_folder import NotebookRun
from hybridlab.results.schema import was_stopped
from hybridlab.units import counted, format_bytes, format_seconds
from hybridlab.widgets.bars import Bar, bars_html
from hybridlab.widgets.html import framed, output
from hybridlab.widgets.stopping import AGAIN_S, Stop
from hybridlab.widgets.watched_case import WatchedCase, stack_of

HINT = (
    f"The kernel's interrupt (■) stops this case; twice within {AGAIN_S:.0f} s it stops the rest."
)


def live_view(params: Params, device: Device) -> CaseObserver | None:
    """A view to hand to the case runner; None where there is no front end to show it."""
    from IPython import get_ipython

    shell = get_ipython()
    if params.headless or params.inline or not hasattr(shell, "kernel"):
        return None
    return LiveView(device, shell)


class LiveView:
    """Watches the cases of one notebook; each cell that runs cases gets a panel of its own."""

    def __init__(self, device: Device, shell: Any) -> None:
        self.device, self.shell = device, shell
        self.stop = Stop()
        self._panel: Panel | None = None
        self._watched: WatchedCase | None = None

    @property
    def stopped(self) -> bool:
        return self.stop.rest

    @contextmanager
    def watch(self, part: NotebookRun, case: Case, place: str) -> Iterator[Path]:
        if self._panel is None:  # the first case also waits for the server that forks it
            self._panel = Panel()
            self.shell.events.register("post_run_cell", self._cell_ended)
        told = self._panel.folder / f"{case.id}.jsonl"
        told.unlink(missing_ok=True)  # of an earlier try
        trials = part.folder / "trials.jsonl"
        self._watched = WatchedCase(case, place, self.device.name, told, trials)
        self._panel.draw(case_html(self._watched))
        with self.stop.listening():
            yield told

    def tick(self, pid: int) -> bool:
        if self._watched is not None and self._panel is not None:
            self._watched.look(pid)
            self._panel.draw(case_html(self._watched))
        return self.stop.case

    def ended(self, row: Mapping[str, Any]) -> None:
        if self._panel is None:  # no case has run in this cell
            return
        self._panel.count(row)
        if self._watched is not None and self._watched.case.id == row["case_id"]:
            self._panel.draw(case_html(self._watched, ended=row))

    def _cell_ended(self, _: Any) -> None:
        self.shell.events.unregister("post_run_cell", self._cell_ended)
        if self._panel is not None:
            self._panel.freeze()
        self._panel = self._watched = None


class Panel:
    """What is seen in one cell; when it has ended, for good."""

    def __init__(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        #: How each case ended; one that was run again counts by its last try.
        self.outcomes: dict[str, str] = {}
        self.disturbed = ""
        #: Where the cases of this cell tell what they do; a stopped one may still be at its last
        #: word when the cell ends.
        self._folder = tempfile.TemporaryDirectory(
            prefix="hybridlab-live-", ignore_cleanup_errors=True
        )
        self._view = output()
        self._box = widgets.VBox([self._view, widgets.HTML(HINT)])
        self._handle = display(self._box, display_id=True)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def count(self, row: Mapping[str, Any]) -> None:
        """How a case ended; of invalid ones the latest cause is kept."""
        self.outcomes[row["case_id"]] = "stopped" if was_stopped(row) else row["status"]
        if row["status"] == "invalid":
            self.disturbed = row["reason"]

    def draw(self, html: str) -> None:
        self._view.value = html + invalid_html(self.outcomes, self.disturbed)

    def freeze(self) -> None:
        """Put what is seen in the widgets' place, and how the cell's cases ended."""
        from IPython.display import HTML

        counts = Counter(self.outcomes.values())
        ran = ", ".join(f"{count} {status}" for status, count in counts.items())
        title = f"<div><b>live view, ended</b>: {ran or 'no case'}; the last one:</div>"
        self._handle.update(HTML(title + self._view.value))
        self._box.close_all()
        self._folder.cleanup()


# ----------------------------------------------------------------------------------- the picture


def case_html(watched: WatchedCase, *, ended: Mapping[str, Any] | None = None) -> str:
    """What a case is, its phase or what became of it, its memory and its latest trial."""
    case = watched.case
    whisper = case.asr.model if case.asr else "no Whisper"
    title = (
        f"<b>case {watched.place}</b> · {escape(case.experiment)}: "
        f"{escape(arm_name(case.strategy, case.variant))}, {escape(whisper)} and "
        f"{escape(case.llm.model)}"
    )
    seconds = time.monotonic() - watched.began_s
    progress = f"<b>{escape(watched.state.phase or 'starting')}</b> · {seconds:.1f} s"
    if ended is not None:
        progress = f"ended: <b>{escape(ended['status'])}</b> {escape(ended['reason'])}"
    memory = memory_html(watched.state, watched.used_bytes, watched.highest_bytes)
    lines = (title, progress, memory, trial_html(watched.latest_trial, watched.n_trials))
    return framed(*(f"<div>{line}</div>" for line in lines))


def invalid_html(outcomes: Mapping[str, str], cause: str) -> str:
    """How many of the cases so far are invalid, and why the latest is; nothing where none is."""
    count = list(outcomes.values()).count("invalid")
    if not count:
        return ""
    words = f"{count} of {counted(len(outcomes), 'case')} so far invalid"
    return framed(f'<div role="alert"><b>{words}</b>: {escape(cause)}</div>')


def memory_html(state: LiveState, used_bytes: int, highest_bytes: int) -> str:
    """The bar of what is in use, and the highest reading so far."""
    if not highest_bytes:
        return "<i>no reading of memory yet</i>"
    parts = {owner: n_bytes for owner, n_bytes in stack_of(state, used_bytes).items() if n_bytes}
    note = f"{format_bytes(used_bytes)} in use, at most {format_bytes(highest_bytes)}"
    others = 0 if state.memory_limited else state.others_bytes
    bar = Bar(label="now", parts=parts, note=note, others_bytes=others)
    return bars_html([bar], capacity_bytes=state.capacity_bytes)


def trial_html(trial: Mapping[str, Any] | None, count: int) -> str:
    """The latest trial of a case: how long it took, and what was said."""
    if trial is None:
        return "<i>no trial yet</i>"
    said = [
        f"<div>{name}: “{escape(text)}”</div>"
        for name in ("transcript", "question", "answer")
        if (text := trial.get(name))
    ]
    return (
        f"<div>trial {count}, {escape(trial['clip_id'])} of {trial['audio_s']:.1f} s: "
        f"<b>{format_seconds(trial['latency_s'])}</b></div>{''.join(said)}"
    )
