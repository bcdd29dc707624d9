"""Figure of what a better text costs: word error rate against the memory of each tenant alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.summary import RULE, Quality, qualities
from hybridlab.units import GIB, MIB

_MARKERS = {"voxtral": "o", "whisper": "s"}
#: Labels closer than this, in shares of the axes, are moved apart.
_APART_X, _APART_Y = 0.3, 0.09


@style.styled
def quality_memory(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A mark per tenant alone on the reader's clips: bytes of its weights, word error rate with its
    interval, and beside it how fast it transcribes."""
    found = [one for one in qualities(trials, cases) if one.weights_bytes is not None]
    if not found:
        return style.nothing_to_show(
            "No tenant's text was held against a reference (no quality_sizes, weights without "
            "text, or clips without a reference)."
        )
    unit, name = (
        (GIB, "GiB") if max(one.weights_bytes or 0 for one in found) > GIB else (MIB, "MiB")
    )
    figure, ax = style.new_axes(4.4)
    for one in found:
        colour, at = style.OWNER_COLOURS[one.tenant], (one.weights_bytes or 0) / unit
        ax.vlines(at, one.wer.low * 100, one.wer.high * 100, color=colour, linewidth=2.2)
        ax.plot(at, one.wer.value * 100, _MARKERS[one.tenant], color=colour, markersize=11)
    ax.set_xlim(0, 1.5 * ax.get_xlim()[1])
    ax.set_ylim(*_limits(ax))
    _label(ax, found, unit)
    ax.set_xlabel(f"weights on the device ({name})")
    ax.set_ylabel("word error rate (%)")
    caption = wording.caption_of(
        None,
        f"n = {max(one.clips for one in found)} clips, each tenant alone; bar: bootstrap 95 % "
        "interval over clips; x: seconds of audio per second",
        RULE,
        "weights: " + ", ".join(sorted({one.weights for one in found})),
        wording.device_words(cases[cases["experiment"] == "quality"]),
    )
    return style.finish(figure, quality_finding(found), caption)


def _limits(ax: Axes) -> tuple[float, float]:
    """From just below zero, so that a mark at zero is whole, with room for a label on top."""
    top = max(ax.get_ylim()[1], 1.0)
    return -0.06 * top, 1.08 * top


def _label(ax: Axes, found: list[Quality], unit: float) -> None:
    """Words to the right of each mark, those that would meet moved upwards."""
    low, high = ax.get_ylim()
    taken: list[tuple[float, float]] = []
    for one in sorted(found, key=lambda one: one.wer.value):
        x = (one.weights_bytes or 0) / unit
        y = one.wer.value * 100
        across, up = x / ax.get_xlim()[1], (y - low) / (high - low)
        while any(abs(across - a) < _APART_X and abs(up - b) < _APART_Y for a, b in taken):
            up += _APART_Y
        taken.append((across, up))
        speed = f", {one.rtfx.value:.3g} x" if one.rtfx.n else ""
        ax.annotate(
            f"{name_of(one)}: {one.word}{speed}",
            (x, low + up * (high - low)),
            xytext=(11, 0),
            textcoords="offset points",
            va="center",
        )


def name_of(one: Quality) -> str:
    return f"{'Voxtral' if one.tenant == 'voxtral' else 'Whisper'} {one.model}"


def quality_finding(found: list[Quality]) -> str:
    """Which text is best, and what the smallest tenant's costs."""
    best, smallest = found[0], min(found, key=lambda one: one.weights_bytes or 0)
    words = f"{name_of(best)} gets {wording.percent(best.wer.value)} of the words wrong"
    if smallest is best:
        return words + (" and is the smallest, too" if len(found) > 1 else "")
    share = (smallest.weights_bytes or 0) / (best.weights_bytes or 1)
    return (
        f"{words}; {name_of(smallest)}, with {wording.percent(share)} of its bytes, gets "
        f"{wording.percent(smallest.wer.value)}"
    )
