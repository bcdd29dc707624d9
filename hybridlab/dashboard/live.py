"""Memory of the running case, drawn from the main cell while its process works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from html import escape
from pathlib import Path

from hybridlab.device import Device
from hybridlab.device.nvml import nvml_used_bytes
from hybridlab.experiments.case import Case
from hybridlab.params import Params
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
