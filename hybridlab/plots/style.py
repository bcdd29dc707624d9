"""The look that all figures share: theme, colours, title, caption, saving."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend

from hybridlab.units import GIB, format_bytes

P = ParamSpec("P")

WIDTH_IN = 9.0  # at 150 dpi 1350 px; half of that is still read
DPI = 150
_PALETTE = [mpl.colors.to_hex(colour) for colour in sns.color_palette("colorblind")]

#: One colour per owner of memory, through every figure; the hatch is the second channel.
OWNER_COLOURS = {
    "base": _PALETTE[7],
    "voxtral": _PALETTE[0],
    "whisper": _PALETTE[1],
    "request": _PALETTE[2],
    "load": _PALETTE[4],
    "unexplained": "#d0d0d0",
    "free": "#ffffff",
}
OWNER_HATCHES = {
    "base": "",
    "voxtral": "//",
    "whisper": "\\\\",
    "request": "..",
    "load": "xx",
    "unexplained": "--",
    "free": "",
}
#: Strategies have colours that no tenant has, and a marker and a dash each.
STRATEGY_COLOURS = {
    "solo": "#555555",
    "sequential": _PALETTE[3],
    "parallel": _PALETTE[4],
    "swapping": "#2f8fbf",
    "pipelined": _PALETTE[5],
}
STRATEGY_MARKERS = {
    "solo": "o",
    "sequential": "s",
    "parallel": "^",
    "swapping": "D",
    "pipelined": "v",
}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)))
MUTED = "#555555"
CAPACITY_COLOUR = "#222222"
_CAPTION_POINTS = 10.0
_LEGEND_POINTS = 10.5

_RC: Any = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=1.05),
    "axes.titlesize": 12,
    "figure.titlesize": 14,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "hatch.linewidth": 0.6,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "svg.hashsalt": "hybridlab",
}


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a plot function under the lab's theme without touching matplotlib's global state."""

    @functools.wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_RC):
            return plot(*args, **kwargs)

    return wrapper


def new_figure(height_in: float, *, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure that lays itself out; never registered with pyplot."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def new_axes(height_in: float) -> tuple[Figure, Axes]:
    figure = new_figure(height_in)
    return figure, figure.add_subplot()


def rows_height(rows: int, *, each_in: float = 0.52) -> float:
    """Height of a figure with one horizontal bar per row, in inches."""
    return 2.2 + each_in * max(rows, 2)


def finish(figure: Figure, title: str, caption: str) -> Figure:
    """Write the finding above, and below the legend and the small print, in height added for them.

    Constrained layout would put a legend and a caption outside the axes into the same place.
    """
    width, height = figure.get_size_inches()
    title = title.strip().replace(" %", "\u00a0%")  # never apart at the end of a line
    filled = textwrap.fill(title, round(width * 7.9)).replace("\u00a0", " ")
    figure.suptitle(filled, x=0.012, ha="left", va="top")
    lines = textwrap.wrap(caption, round(width * 11.8))
    caption_in = 0.12 + len(lines) * _CAPTION_POINTS * 1.35 / 72
    legend_in = max((_legend_height_in(legend) for legend in figure.legends), default=0.0)
    total = height + caption_in + legend_in
    figure.set_figheight(total)
    figure.text(
        0.012,
        0.06 / total,
        "\n".join(lines),
        va="bottom",
        linespacing=1.3,
        fontsize=_CAPTION_POINTS,
        color=MUTED,
    )
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.0, caption_in / total), transform=figure.transFigure)
    below = (caption_in + legend_in) / total
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, below, 1, 1 - below))
    return figure


def _legend_height_in(legend: Legend) -> float:
    """Inches that a legend without a frame takes, from its rows, spacing and padding."""
    columns = int(legend._ncols)  # type: ignore[attr-defined]
    rows = -(-len(legend.get_texts()) // columns)
    return (rows * (1.15 + float(legend.labelspacing)) + 0.8) * _LEGEND_POINTS / 72


def nothing_to_show(what: str) -> Figure:
    """A figure that states in words what is missing."""
    figure = new_figure(1.6)
    text = textwrap.fill(what, 80)
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, fontsize=13)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.png` (150 dpi) and `.svg`; the same figure gives the same bytes.

    The finding goes into the files' metadata, where the report finds its alternative text.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    title = " ".join(figure.get_suptitle().split())
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None, "Title": title},
        "svg": {"Date": None, "Creator": None, "Title": title},
    }
    paths = []
    with mpl.rc_context(_RC):
        for kind, values in metadata.items():
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=DPI, facecolor="white", metadata=values)
            paths.append(path)
    return paths


# ----------------------------------------------------------------------------------------- notes


def note_column(ax: Axes, notes: Sequence[tuple[float, str]]) -> None:
    """Words to the right of the axes, one per row, where they can cover nothing."""
    for y, text in notes:
        ax.text(1.015, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=11)


# -------------------------------------------------------------------------------------- capacity


def draw_capacity(
    ax: Axes, capacities: Iterable[float], longest: float, *, vertical: bool = True
) -> None:
    """A dashed line at the capacity; far beyond the bars it is written instead of drawn, since the
    axis would be stretched until nothing can be read."""
    known = sorted({round(c) for c in capacities if np.isfinite(c) and c > 0})
    if not known:
        return
    words = " / ".join(format_bytes(c) for c in known)
    if known[0] > 6 * longest:
        ax.annotate(
            f"capacity {words}: far outside this axis",
            (1.0, 1.0),
            xytext=(0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=MUTED,
            fontsize=10,
        )
        return
    reach = known[-1] / GIB * (1.04 if vertical else 1.12)
    if vertical:
        ax.set_xlim(right=max(ax.get_xlim()[1], reach))
    else:
        ax.set_ylim(top=max(ax.get_ylim()[1], reach))
    for capacity in known:
        line = ax.axvline if vertical else ax.axhline
        line(capacity / GIB, color=CAPACITY_COLOUR, linestyle="--", linewidth=1.6, zorder=5)
        place: dict[str, Any] = (
            {"xy": (capacity / GIB, 1.0), "xycoords": ax.get_xaxis_transform(), "ha": "center"}
            if vertical
            else {"xy": (1.0, capacity / GIB), "xycoords": ax.get_yaxis_transform(), "ha": "right"}
        )
        ax.annotate(
            f"capacity {format_bytes(capacity)}",
            xytext=(0, 4),
            textcoords="offset points",
            va="bottom",
            fontsize=10,
            color=CAPACITY_COLOUR,
            **place,
        )


def legend_below(ax: Axes, *, columns: int = 5, handles: Sequence[Any] | None = None) -> None:
    """A legend under the axes, in rows, where no data can be; `finish` makes room for it."""
    figure = ax.get_figure()
    if figure is None:
        return
    found, labels = ax.get_legend_handles_labels()
    if handles is not None:
        found, labels = list(handles), [handle.get_label() for handle in handles]
    if not found:
        return
    rows = -(-len(found) // columns)
    legend = figure.legend(
        found,
        labels,
        loc="lower left",
        ncols=-(-len(found) // rows),
        frameon=False,
        fontsize=_LEGEND_POINTS,
        handlelength=1.8,
        handletextpad=0.6,
        columnspacing=1.4,
    )
    legend.set_in_layout(False)
