"""What several figures draw: rows with names and notes, stacks of owners, capacity, legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hybridlab.reporting.figures import wording
from hybridlab.reporting.figures.palette import CAPACITY_COLOUR, MUTED, OWNER_COLOURS, OWNER_HATCHES
from hybridlab.reporting.figures.style import CAPTION_POINTS, LEGEND_POINTS
from hybridlab.units import GIB, format_bytes

OWNER_WORDS = {
    "base": "process / context",
    "voxtral": "Voxtral weights",
    "whisper": "Whisper weights",
    "server": "server",
    "second server": "second server",
    "gateway": "gateway",
    "request": "request",
    "load": "loading",
    "unexplained": "other",
}
#: From this ratio of capacity to the longest bar on, capacity is written instead of drawn.
FAR = 6.0


# ------------------------------------------------------------------------------------------ rows


def name_rows(ax: Axes, labels: Sequence[str], *, best: int | None = None) -> None:
    """One row for each label, the first on top; the best one's name is bold."""
    ax.set_yticks(range(len(labels)), [wrap_name(label) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    if best is not None and len(labels) > 1:
        ax.get_yticklabels()[best].set_fontweight("bold")


def wrap_name(label: str) -> str:
    return "\n".join(wording.wrap(line, 32) for line in label.split("\n"))


def note_column(ax: Axes, notes: Iterable[tuple[float, str]]) -> None:
    """Words to the right of the axes, one per row, where they can cover nothing."""
    for y, text in notes:
        ax.text(1.015, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=11)


def text_row(ax: Axes, y: float, text: str) -> None:
    """Why a row has nothing to draw."""
    ax.text(
        0.01,
        y,
        wording.wrap(text, 60),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=10,
        color=MUTED,
        style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=6,
    )


def spread(count: int, width: float) -> Any:
    """Offsets that keep points of one row apart: the same rows give the same picture."""
    return ((np.arange(count) * 0.618034) % 1 - 0.5) * width


# ---------------------------------------------------------------------------------------- stacks


def draw_stacks(ax: Axes, stacks: Sequence[Mapping[str, float]]) -> None:
    """Horizontal bars of bytes by owner, one per row, on an axis in GiB."""
    for y, stack in enumerate(stacks):
        left = 0.0
        for owner, n_bytes in stack.items():
            ax.barh(
                y,
                n_bytes / GIB,
                left=left / GIB,
                height=0.62,
                color=OWNER_COLOURS[owner],
                hatch=OWNER_HATCHES[owner],
                edgecolor="white",
                linewidth=0.5,
                zorder=3,
            )
            left += n_bytes
    ax.set_xlim(left=0)


def owner_handles(stacks: Sequence[Mapping[str, float]]) -> list[Patch]:
    """Legend entries of the owners that are seen in some bar."""
    seen = {owner for stack in stacks for owner, n_bytes in stack.items() if n_bytes > 0}
    return [
        Patch(
            facecolor=OWNER_COLOURS[owner],
            hatch=OWNER_HATCHES[owner],
            edgecolor="white",
            label=words,
        )
        for owner, words in OWNER_WORDS.items()
        if owner in seen
    ]


# -------------------------------------------------------------------------------------- capacity


def draw_capacity(
    ax: Axes, capacities: Iterable[float], longest: float, *, vertical: bool = True
) -> None:
    """A dashed line at each capacity; those far beyond the bars are written instead of drawn, since
    the axis would be stretched until nothing can be read."""
    named = {format_bytes(round(c)): round(c) for c in capacities if np.isfinite(c) and c > 0}
    known = sorted(named.values())
    near = [c for c in known if c <= FAR * longest]
    far = known[len(near) :]
    if near:
        _draw_near(ax, near, vertical=vertical)
    if far:
        words = " / ".join(format_bytes(c) for c in far)
        _write_capacity(
            ax,
            f"capacity {words}: far outside this axis",
            (1.0, 1.0),
            "axes fraction",
            "right",
            row=len(near) if vertical else 0,
        )


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
        fontsize=LEGEND_POINTS,
        handlelength=2.4,
        handletextpad=0.6,
        columnspacing=1.4,
    )
    legend.set_in_layout(False)
