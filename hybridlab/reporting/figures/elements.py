"""What several figures draw: rows with names and notes, stacks, capacity, legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from hybridlab.reporting import labels
from hybridlab.reporting.figures.theme import CAPTION_POINTS, LEGEND_POINTS
from hybridlab.reporting.memory_stack import Look, Stack, is_far, legend, segments
from hybridlab.reporting.palette import CAPACITY_COLOUR, MUTED, OWNER_LOOK
from hybridlab.units import GIB, format_bytes

# ------------------------------------------------------------------------------------------ rows


def name_rows(ax: Axes, names: Sequence[str], *, best: int | None = None) -> None:
    """One row for each name, the first on top; the best one's name is bold."""
    wrapped = ["\n".join(labels.wrap(line, 32) for line in name.split("\n")) for name in names]
    ax.set_yticks(range(len(names)), wrapped)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    if best is not None and len(names) > 1:
        ax.get_yticklabels()[best].set_fontweight("bold")


def note_column(ax: Axes, notes: Iterable[tuple[float, str]]) -> None:
    """Words to the right of the axes, one per row, where they can cover nothing."""
    for y, text in notes:
        ax.text(1.015, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=11)


def text_row(ax: Axes, y: float, text: str) -> None:
    """Why a row has nothing to draw."""
    ax.text(
        0.01,
        y,
        labels.wrap(text, 60),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=10,
        color=MUTED,
        style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=6,
    )


# ---------------------------------------------------------------------------------------- stacks


def draw_stacks(
    ax: Axes, stacks: Sequence[Stack], look: Look = OWNER_LOOK, *, unit: float = GIB
) -> None:
    """Horizontal bars by part, one per row, in `unit`; `look` has each part's colour and hatch."""
    for y, stack in enumerate(stacks):
        for part in segments(stack, look):
            left, width = part.start / unit, part.size / unit
            bar: dict[str, Any] = {"color": part.colour, "hatch": part.hatch, "linewidth": 0.5}
            ax.barh(y, width, left=left, height=0.62, edgecolor="white", zorder=3, **bar)
    ax.set_xlim(left=0)


def stack_legend(
    ax: Axes,
    stacks: Sequence[Stack],
    look: Look = OWNER_LOOK,
    *,
    names: Mapping[str, str] = labels.OWNERS,
    columns: int = 5,
) -> None:
    """A legend of the parts that are seen in some bar, in the order of `look`; a part that `names`
    does not know goes by its own name."""
    handles = [
        Patch(facecolor=part.colour, hatch=part.hatch, edgecolor="white", label=part.label)
        for part in legend(stacks, look, names)
    ]
    legend_below(ax, handles=handles, columns=columns)


# -------------------------------------------------------------------------------------- capacity


def draw_capacity(
    ax: Axes, capacities: Iterable[float], longest: float, *, vertical: bool = True
) -> None:
    """A dashed line at each capacity; those far beyond the bars are written instead of drawn, since
    the axis would be stretched until nothing can be read."""
    named = {format_bytes(round(c)): round(c) for c in capacities if np.isfinite(c) and c > 0}
    known = sorted(named.values())
    near = [c for c in known if not is_far(c, longest)]
    far = known[len(near) :]
    if near:
        _draw_near(ax, near, vertical=vertical)
    if far:
        words = f"capacity {' / '.join(map(format_bytes, far))}: far outside this axis"
        row = len(near) if vertical else 0
        _write_capacity(ax, words, (1.0, 1.0), "axes fraction", "right", row=row)


def _draw_near(ax: Axes, capacities: Sequence[int], *, vertical: bool) -> None:
    """Ascending. Where there are several, each name stands in a row of its own."""
    reach = capacities[-1] / GIB * (1.04 if vertical else 1.12)
    if vertical:
        ax.set_xlim(right=max(ax.get_xlim()[1], reach))
    else:
        ax.set_ylim(top=max(ax.get_ylim()[1], reach))
    for row, capacity in enumerate(capacities):
        line = ax.axvline if vertical else ax.axhline
        line(capacity / GIB, color=CAPACITY_COLOUR, linestyle="--", linewidth=1.6, zorder=5)
        words, at = f"capacity {format_bytes(capacity)}", capacity / GIB
        if vertical:
            _write_capacity(ax, words, (at, 1.0), ax.get_xaxis_transform(), "center", row=row)
        else:
            _write_capacity(ax, words, (1.0, at), ax.get_yaxis_transform(), "right")


def _write_capacity(
    ax: Axes, words: str, at: tuple[float, float], coordinates: Any, side: Any, *, row: int = 0
) -> None:
    ax.annotate(
        words,
        at,
        xycoords=coordinates,
        xytext=(0, 4 + row * (CAPTION_POINTS + 3)),
        textcoords="offset points",
        ha=side,
        va="bottom",
        fontsize=CAPTION_POINTS,
        color=CAPACITY_COLOUR,
    )


# ---------------------------------------------------------------------------------------- legend


#: How every legend looks.
_LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": LEGEND_POINTS,
    "handlelength": 2.4,
    "handletextpad": 0.6,
    "columnspacing": 1.4,
}


def legend_below(ax: Axes, *, columns: int = 5, handles: Sequence[Any] | None = None) -> None:
    """A legend under the axes, in rows, where no data can be; `finish` makes room for it."""
    figure = ax.get_figure()
    found = list(handles) if handles is not None else ax.get_legend_handles_labels()[0]
    if figure is None or not found:
        return
    rows = -(-len(found) // columns)
    drawn = figure.legend(handles=found, loc="lower left", ncols=-(-len(found) // rows), **_LEGEND)
    drawn.set_in_layout(False)


def legend_above(ax: Axes, handles: Sequence[Any]) -> None:
    """One row from the figure's left edge on, above what is written over the axes: for marks that
    are not understood without it."""
    figure = ax.get_figure()
    assert figure is not None
    row = ax.legend(
        handles=handles,
        loc="lower left",
        ncols=len(handles),
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=blended_transform_factory(figure.transFigure, ax.transAxes),
        borderaxespad=2.0,
        **_LEGEND,
    )
    row.set_zorder(10)
