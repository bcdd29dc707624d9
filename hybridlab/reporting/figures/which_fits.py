"""Which Whisper fits beside Voxtral on one card: the first figure of README, report and notebook
02."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import blended_transform_factory

from hybridlab.analysis.which_fits import PairFit, WhichFits
from hybridlab.analysis.which_fits import which_fits as answer
from hybridlab.catalog import Card
from hybridlab.reporting import fit_words, labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.palette import CAPACITY_COLOUR, FIT_LOOK, GUIDE, MUTED, PAGE_COLOURS
from hybridlab.units import GIB

#: Of a row's height: its bar, and the mark of its load peak, which is seen on a bar as well.
_BAR, _TICK = 0.56, 0.78
_ROW_IN = 0.28
#: Points left of the axes where the sizes stand, beyond the names of the combinations.
_SIZE_POINTS = -162
#: Grounds: of the pick, and of what is more than the card has.
_PICKED, _BEYOND = PAGE_COLOURS["light"]["good-bg"], PAGE_COLOURS["light"]["bad-bg"]
_MARK: dict[str, Any] = {"marker": "D", "color": "white", "markeredgecolor": "black"}
_MARK |= {"markersize": 5, "linestyle": "", "zorder": 6}


@theme.styled()
def which_fits(cases: pd.DataFrame, card: Card | None = None) -> Figure:
    """A bar for every size in its best combination and in openai-whisper's default, against the
    card's capacity: idle, request peak, load peak and prediction; hollow where no case ran.

    `cases` and `card` as of `analysis.which_fits`.
    """
    return draw(answer(cases, card))


@theme.styled()
def draw(found: WhichFits, *, title: bool = True) -> Figure:
    """`which_fits` of what is known already; without a title where one stands above it."""
    figure, ax = theme.new_axes(theme.rows_height(len(found.rows), each_in=_ROW_IN) - 0.9)
    for y, row in enumerate(found.rows):
        _draw_row(ax, y, row)
        _note(ax, y, row, picked=row == found.pick)
    _name_rows(ax, found)
    highest = max(max(row.moments.values(), default=0.0) for row in found.rows)
    ax.set_xlim(0, max(highest, found.capacity_bytes) / GIB * 1.06)
    elements.draw_capacity(ax, [found.capacity_bytes], ax.get_xlim()[1] * GIB)
    ax.axvspan(found.capacity_bytes / GIB, ax.get_xlim()[1], color=_BEYOND, zorder=0.5)
    ax.set_facecolor("none")  # the ground of the pick goes through
    if found.pick:
        _mark_pick(figure, ax, found.rows.index(found.pick))
    ax.set_xlabel("memory in use on the card, driver and other programs included (GiB)")
    ax.xaxis.label.set_fontsize(theme.LEGEND_POINTS)
    elements.legend_above(ax, _handles(found))
    return theme.finish(figure, fit_words.headline(found) if title else "", _caption(found))


def _draw_row(ax: Axes, y: int, row: PairFit) -> None:
    dark, pale = FIT_LOOK[row.fits]
    idle, request, load = (
        row.moments.get(name, 0.0) / GIB for name in ("idle", "request_peak", "load_peak")
    )
    bar: dict[str, Any] = {"height": _BAR, "zorder": 3, "linewidth": 1.2}
    if row.evidence == "predicted":
        edge = dark if row.fits else GUIDE
        ax.barh(y, request, facecolor="white", edgecolor=edge, **bar)
        ax.barh(y, idle, facecolor="white", edgecolor=edge, **bar)
    else:
        ax.barh(y, request, facecolor=pale, edgecolor=pale, **bar)
        ax.barh(y, idle, facecolor=dark, edgecolor=dark, **bar)
    if load:
        ax.plot([min(idle, load), load], [y, y], color=CAPACITY_COLOUR, linewidth=1, zorder=4)
        ends = [y - _TICK / 2, y + _TICK / 2]
        ax.plot([load, load], ends, color=CAPACITY_COLOUR, linewidth=2, zorder=5)
    if row.predicted is not None:
        reach = [row.predicted.low / GIB, row.predicted.high / GIB]
        ax.plot(reach, [y, y], color="black", linewidth=1, zorder=5)
        ax.plot(row.predicted.expected / GIB, y, **_MARK)


def _name_rows(ax: Axes, found: WhichFits) -> None:
    """The combinations, and left of them each size once, in the row of the pick or the first."""
    names = [f"{row.asr_dtype} {row.asr_backend}" for row in found.rows]
    ax.set_yticks(range(len(names)), names, fontsize=theme.CAPTION_POINTS)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(visible=False, axis="y")
    for size, group in groupby(enumerate(found.rows), key=lambda one: one[1].asr_model):
        own = list(group)
        picked = [y for y, row in own if row == found.pick]
        at = picked[0] if picked else own[0][0]
        ax.annotate(
            size,
            (0, at),
            (_SIZE_POINTS, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            annotation_clip=False,
            va="center",
            ha="right",
            fontsize=12,
            fontweight="bold" if picked else "normal",
        )
        if own[-1][0] + 1 < len(names):
            ax.axhline(own[-1][0] + 0.5, color=GUIDE, linewidth=0.6, zorder=1)
    for label, row in zip(ax.get_yticklabels(), found.rows, strict=True):
        label.set_color("black" if row.fits else MUTED)
        label.set_fontweight("bold" if row == found.pick else "normal")


def _note(ax: Axes, y: int, row: PairFit, *, picked: bool) -> None:
    """To the right of a row what it leaves and what breaks first."""
    ax.text(
        *(1.02, y, fit_words.row_words(row)),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=10,
        color=FIT_LOOK[True][0] if row.fits else MUTED,
        fontweight="bold" if picked else "normal",
    )


def _mark_pick(figure: Figure, ax: Axes, y: int) -> None:
    """The row of the pick stands on a ground of its own, from edge to edge."""
    ground = Rectangle(
        *((0.0, y - 0.5), 1.0, 1.0),
        transform=blended_transform_factory(figure.transFigure, ax.transData),
        facecolor=_PICKED,
        clip_on=False,
        zorder=0.2,
    )
    ground.set_in_layout(False)
    ax.add_artist(ground)


def _handles(found: WhichFits) -> list[Any]:
    dark, pale = FIT_LOOK[True]
    hollow: dict[str, Any] = {"facecolor": "white", "edgecolor": dark}
    tick: dict[str, Any] = {"marker": "|", "color": CAPACITY_COLOUR, "linestyle": ""}
    tick |= {"markersize": 13, "markeredgewidth": 2}
    shared = [
        Line2D([], [], label=labels.MOMENTS["load_peak"], **tick),
        Line2D([], [], label="predicted peak", **_MARK),
    ]
    idle, request = (labels.MOMENTS[name] for name in ("idle", "request_peak"))
    if not found.n_run:
        return [Patch(**hollow, label=f"{idle}, then {request}"), *shared]
    ran = [Patch(facecolor=dark, label=idle), Patch(facecolor=pale, label=request)]
    rest = [Patch(**hollow, label="hollow: predicted, not run")]
    return [*ran, *shared, *(rest if found.n_run < len(found.rows) else [])]


def _caption(found: WhichFits) -> str:
    words = [f"n = {kind}" for kind in fit_words.evidence(found)]
    words.append("no interval: one case for each pair" if found.n_run else "no interval")
    words.append(f"Voxtral {found.llm_model} in {found.llm_dtype}, both resident")
    if len(found.cases):
        words += theme.origin(found.cases)
    elif found.card is not None:
        words += [
            "weights: true sizes from the catalog",
            f"card {found.card.name}, no memory limit set",
        ]
    words += fit_words.audio_is_from(found)
    for why in dict.fromkeys(found.reasons.values()):
        names = ", ".join(name for name, reason in found.reasons.items() if reason == why)
        words.append(f"{names} did not run{f': {why}' if why else ''}")
    return "\N{NO-BREAK SPACE}· ".join(words)
