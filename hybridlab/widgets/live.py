"""A running case, drawn from the main cell while its process works: memory by owner, its phase, its
latest trial, and a way to stop it. When the cell ends, a static picture takes its place."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path
from typing import Any

from hybridlab.config.params import Params
from hybridlab.devices import Device
from hybridlab.experiments.case import Case, CaseObserver
from hybridlab.experiments.case_runner import was_stopped
from hybridlab.experiments.live_feed import LiveState
from hybridlab.reporting.labels import arm_name
from hybridlab.results.run_folder import NotebookRun
from hybridlab.units import format_bytes, format_seconds
from hybridlab.widgets.html import framed, output
from hybridlab.widgets.memory_svg import Bar, Moment, memory_svg
from hybridlab.widgets.monitor_readings import Readings, Trials
from hybridlab.widgets.stop_button import AGAIN_S, Stop, let_clicks_through, takes_clicks

INTERRUPT = f"the kernel's interrupt (■); twice within {AGAIN_S:.0f} s it stops the rest"


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
        self._watched: Watched | None = None

    @property
    def stopped(self) -> bool:
        return self.stop.rest.is_set()

    @contextmanager
    def watch(self, part: NotebookRun, case: Case, place: str) -> Iterator[Path]:
        panel = self._show()
        told = panel.folder / f"{case.id}.jsonl"
        told.unlink(missing_ok=True)  # of an earlier try
        trials = Trials(part.folder / "trials.jsonl", case.id)
        with Watched(case, place, self.device.name, told, trials) as self._watched:
            panel.draw(self._watched)
            with self.stop.listening():
                yield told

    def tick(self, pid: int) -> bool:
        if self._watched is not None and self._panel is not None:
            self._panel.draw(self._watched.look(pid))
        return self.stop.case.is_set()

    def ended(self, row: Mapping[str, Any]) -> None:
        if self._panel is None:  # no case has run in this cell
            return
        self._panel.outcomes["stopped" if was_stopped(row) else row["status"]] += 1
        if self._watched is not None and self._watched.case.id == row["case_id"]:
            self._panel.end(self._watched, row)

    def _show(self) -> Panel:
        """The panel of the cell that runs now."""
        if self._panel is None:
            # a first case also waits for the server that forks it, a few seconds
            self._panel = Panel(self.stop, clicks=takes_clicks(self.shell.kernel))
            self.shell.events.register("post_run_cell", self._cell_ended)
        return self._panel

    def _cell_ended(self, _: Any) -> None:
        self.shell.events.unregister("post_run_cell", self._cell_ended)
        if self._panel is not None:
            self._panel.freeze()
        self._panel = self._watched = None


class Watched:
    """One case while it runs: what is known of it so far."""

    def __init__(self, case: Case, place: str, device: str, told: Path, trials: Trials) -> None:
        self.case, self.place, self.trials = case, place, trials
        self._device, self._path = device, told
        self._began_s = time.monotonic()
        self._stack = ExitStack()
        self.readings: Readings | None = None

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look(self, pid: int) -> Watched:
        """Bring it up to date; the first look begins the readings."""
        if self.readings is None:
            self.readings = self._stack.enter_context(Readings(self._device, pid, self._path))
        self.trials.read()
        return self

    def title(self) -> str:
        case = self.case
        whisper = case.asr.model if case.asr else "no Whisper"
        return (
            f"<b>case {self.place}</b> · {escape(case.experiment)}: "
            f"{escape(arm_name(case.strategy, case.variant))}, {escape(whisper)} and "
            f"{escape(case.llm.model)}"
        )

    def progress(self) -> str:
        """The phase that it is in, and for how long it has been at work."""
        phase = self.readings.told.phase if self.readings else ""
        seconds = time.monotonic() - self._began_s
        return f"<b>{escape(phase or 'starting')}</b> · {seconds:.1f} s"

    def memory(self) -> str:
        if self.readings is None or not self.readings.history:
            return "<i>no reading of memory yet</i>"
        return memory_html(list(self.readings.history), self.readings.told)


class Panel:
    """The widgets in one cell, and the picture that stays when it has ended."""

    def __init__(self, stop: Stop, *, clicks: bool) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        self.title, self.progress, self.memory, self.trial = (output() for _ in range(4))
        self.outcomes: Counter[str] = Counter()
        #: Where the cases of this cell tell what they do; a stopped one may still be at its last
        #: word when the cell ends.
        self._folder = tempfile.TemporaryDirectory(
            prefix="hybridlab-live-", ignore_cleanup_errors=True
        )
        self.buttons = _buttons(stop) if clicks else []
        hint = widgets.HTML(f"{'or' if clicks else 'To stop this case:'} {INTERRUPT}")
        rows = [self.title, self.progress, self.memory, self.trial]
        self.box = widgets.VBox([*rows, widgets.HBox([*self.buttons, hint])])
        self.handle = display(self.box, display_id=True)
        for button in self.buttons:
            let_clicks_through(button)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def draw(self, watched: Watched) -> None:
        self.title.value = watched.title()
        self.progress.value = watched.progress()
        self.memory.value = watched.memory()
        self.trial.value = trial_html(watched.trials.latest, watched.trials.count)

    def end(self, watched: Watched, row: Mapping[str, Any]) -> None:
        """The case's last picture, and what became of it."""
        self.draw(watched)
        words = f"<b>{escape(row['status'])}</b> {escape(row['reason'])}".strip()
        self.progress.value = f"ended: {words}"

    def freeze(self) -> None:
        """Put what is seen in the widgets' place, for good."""
        from IPython.display import HTML

        ran = ", ".join(f"{count} {status}" for status, count in self.outcomes.items())
        shown = [self.title, self.progress, self.memory, self.trial]
        lines = [f"<b>live view, ended</b>: {ran or 'no case'}; the last one:"]
        lines += [widget.value for widget in shown]
        self.handle.update(HTML(framed(*(f"<div>{line}</div>" for line in lines))))
        self.box.close_all()
        self._folder.cleanup()


def memory_html(history: Sequence[Moment], told: LiveState) -> str:
    """The bar of the last moment, and the curve of the last minute under it."""
    stack = {owner: n_bytes for owner, n_bytes in history[-1].stack.items() if n_bytes}
    note = f"{format_bytes(history[-1].used_bytes)} in use"
    others = 0 if told.memory_limited else told.others_bytes
    bar = Bar(label="now", parts=stack, note=note, others_bytes=others)
    return memory_svg([bar], capacity_bytes=told.capacity_bytes, history=history)


def _buttons(stop: Stop) -> list[Any]:
    import ipywidgets as widgets

    fitting = {"layout": {"width": "auto"}, "icon": "stop"}
    case = widgets.Button(description="stop this case", button_style="warning", **fitting)
    case.on_click(lambda _: stop.press())
    rest = widgets.Button(description="stop the rest, too", **fitting)
    rest.on_click(lambda _: stop.press(rest=True))
    return [case, rest]


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
