"""Live views in a notebook: core ipywidgets only, drawn from the main cell, absent when headless.

Every live view has a static figure further down, so a headless run loses nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from hybridlab import catalog, planner
from hybridlab.device import Device
from hybridlab.device.nvml import nvml_used_bytes
from hybridlab.experiments.case import Case
from hybridlab.params import Params
from hybridlab.records import Part
from hybridlab.units import GIB, format_bytes

HISTORY = 240  # ticks of 0.25 s: the last minute


class LiveMemory:
    """Memory of the running case against the device's capacity, with the last minute's curve."""

    def __init__(self, device: Device) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        self.device = device
        self.capacity = device.capacity_bytes()
        self.history: deque[int] = deque(maxlen=HISTORY)
        self.bar = widgets.FloatProgress(min=0.0, max=self.capacity / GIB, description="memory")
        self.label = widgets.HTML()
        self.curve = widgets.HTML()
        display(widgets.VBox([self.label, self.bar, self.curve]))

    def tick(self, case: Case, pid: int) -> None:
        """Called four times a second while a case runs."""
        used = self._used_bytes(pid)
        if used is None:
            return  # the case ended between two looks
        self.history.append(used)
        self.bar.value = used / GIB
        self.label.value = (
            f"<b>{escape(case.id)}</b>: {format_bytes(used)} of {format_bytes(self.capacity)} "
            f"on {escape(self.device.name)}"
        )
        self.curve.value = sparkline(list(self.history))

    def _used_bytes(self, pid: int) -> int | None:
        if self.device.kind == "cuda":
            reading = nvml_used_bytes()
            return None if reading.value is None else int(reading.value)
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return None
        return pages * 4096


def live_view(params: Params, device: Device) -> Callable[[Case, int], None] | None:
    """A view to hand to the case runner; None when nobody watches."""
    if params.headless or params.inline:
        return None
    return LiveMemory(device).tick


def sparkline(values: list[int], *, width: int = 480, height: int = 60) -> str:
    """An SVG curve of these values between zero and their maximum."""
    top = max(values) or 1
    step = width / max(1, len(values) - 1)
    points = " ".join(
        f"{i * step:.1f},{height - 2 - (height - 4) * v / top:.1f}" for i, v in enumerate(values)
    )
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="memory, last minute">'
        f'<polyline points="{points}" fill="none" stroke="#0173b2" stroke-width="2"/></svg>'
    )


def plan_explorer(card: str = "t4") -> Any:
    """Choose card, size, backend, dtype, audio and beams; the predicted bytes follow at once."""
    import ipywidgets as widgets

    output = widgets.HTML()
    controls: dict[str, Any] = {
        "card": widgets.Dropdown(options=list(catalog.CARDS), value=card, description="card"),
        "whisper": widgets.Dropdown(
            options=list(catalog.WHISPER_SIZES), value="medium", description="Whisper"
        ),
        "backend": widgets.Dropdown(options=list(catalog.BACKENDS), description="backend"),
        "dtype": widgets.Dropdown(
            options=list(catalog.BACKEND_DTYPES["openai-whisper"]), description="dtype"
        ),
        "audio_s": widgets.IntSlider(
            value=30, min=30, max=2400, step=30, description="audio, s", continuous_update=False
        ),
        "beams": widgets.IntSlider(value=1, min=1, max=8, description="beams"),
    }

    def dtypes(change: Any) -> None:
        controls["dtype"].options = catalog.BACKEND_DTYPES[change["new"]]

    def update(_: Any = None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        if chosen["dtype"] is not None:
            output.value = plan_html(**chosen)

    controls["backend"].observe(dtypes, names="value")
    for control in controls.values():
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls.values(), output])


def plan_html(
    *, card: str, whisper: str, backend: str, dtype: str, audio_s: float, beams: int
) -> str:
    """The predicted bytes of one pair as a sentence and a bar."""
    plan = planner.plan_pair(
        catalog.card(card),
        catalog.whisper(whisper),
        catalog.voxtral("mini-3b"),
        backend=backend,
        dtype=dtype,
        request=planner.Request(audio_s=audio_s, beams=beams),
    )
    share = min(1.0, plan.utilization)
    verdict = "fits" if plan.fits else "does not fit"
    return (
        f"<p><b>{verdict}</b>: predicted {format_bytes(plan.total_bytes)} of "
        f"{format_bytes(plan.capacity_bytes)} ({plan.utilization:.0%}), margin "
        f"{format_bytes(plan.margin_bytes)}; load peak {format_bytes(plan.load_peak_bytes)}, "
        f"steady {format_bytes(plan.steady_bytes)}, "
        f"request peak {format_bytes(plan.request_peak_bytes)}</p>"
        f'<div style="width:480px;border:1px solid #555"><div style="width:{share:.1%};'
        f'height:1em;background:{"#029e73" if plan.fits else "#d55e00"}"></div></div>'
    )


def show_clip(part: Part, case_id: str) -> Any:
    """Listen to the first clip of a case beside what was said about it."""
    from IPython.display import Audio

    trials = part.table("trials")
    own = trials[trials["case_id"] == case_id]
    if own.empty:
        return None
    from hybridlab.audio import load_clips

    clips = {clip.id: clip for clip in load_clips(part.params.audio)}
    return Audio(clips[own.iloc[0]["clip_id"]].samples(), rate=catalog.SAMPLE_RATE_HZ)
