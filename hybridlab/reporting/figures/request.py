"""Figure of what a request holds: the waveform and the log-mel features of its audio."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from hybridlab import catalog
from hybridlab.audio import Samples, log_mel
from hybridlab.reporting import labels
from hybridlab.reporting.figures import theme
from hybridlab.reporting.palette import MUTED

#: More samples than a figure has pixels are drawn as the range of each column.
COLUMNS = 1500


@theme.styled()
def request(samples: Samples, *, name: str = "the audio") -> Figure:
    """Waveform over log-mel features of one clip, over the same seconds."""
    if samples.size == 0:
        return theme.nothing_to_show("No sample is in this clip, so there is nothing to draw.")
    seconds = samples.size / catalog.SAMPLE_RATE_HZ
    figure = theme.new_figure(4.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.6))
    low, high = envelope(samples)
    t_s = np.linspace(0, seconds, low.size)
    top.fill_between(t_s, low, high, color=MUTED, linewidth=0.5)
    top.set_ylabel("amplitude")
    mel = log_mel(samples)
    below.imshow(
        mel, aspect="auto", origin="lower", extent=(0, seconds, 0, mel.shape[0]), cmap="magma"
    )
    below.grid(visible=False)
    below.set_ylabel("mel bin")
    below.set_xlabel("time (s)")
    windows = math.ceil(seconds / catalog.WINDOW_S)
    padded = 1 - seconds / (windows * catalog.WINDOW_S)
    words = (
        f"n = 1 clip, {catalog.SAMPLE_RATE_HZ / 1000:g} kHz mono\N{NO-BREAK SPACE}· {mel.shape[0]} "
        "bins every 10 ms as Voxtral gets them, drawn without the padding; light is loud"
    )
    return theme.finish(figure, _finding(name, seconds, windows, padded), words)


def _finding(name: str, seconds: float, windows: int, padded: float) -> str:
    window = f"{catalog.WINDOW_S:g} s"
    of = f"one window of {window}" if windows == 1 else f"{windows} windows of {window}"
    return (
        f"{name} lasts {seconds:.1f} s: {of}, {labels.percent(padded)} of it padding that the "
        "encoder computes all the same"
    )


def envelope(samples: Samples, *, columns: int = COLUMNS) -> tuple[Samples, Samples]:
    """Lowest and highest sample of each of so many equal spans of time; no peak is lost."""
    count = min(columns, samples.size)
    starts = np.arange(count, dtype=np.int64) * samples.size // count
    return np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)
