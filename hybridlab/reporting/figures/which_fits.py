"""Which Whisper fits beside Voxtral on one card: the first figure of README, report and notebook
02."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hybridlab.analysis.which_fits import PairFit, WhichFits
from hybridlab.analysis.which_fits import which_fits as answer
from hybridlab.catalog import Card
from hybridlab.reporting import fit_words, labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.palette import CAPACITY_COLOUR, GUIDE, MOMENT_LOOK, MUTED, OWNER_LOOK
from hybridlab.units import GIB

#: Of a row's height: one bar, and where the three of a row lie.
_BAR, _LIFTS = 0.23, (-0.25, 0.0, 0.25)
_HATCHES = dict(zip(MOMENT_LOOK, ("//", "", ".."), strict=True))
#: The prediction's mark.
_MARK: dict[str, Any] = {"marker": "D", "color": "white", "markeredgecolor": "black"}
_MARK |= {"markersize": 6, "linestyle": "", "zorder": 6}
_ROW_IN = 0.34


@theme.styled()
def which_fits(cases: pd.DataFrame, card: Card | None = None) -> Figure:
    """Load peak, idle and request peak of every size against the card's capacity, in its best
    combination and in openai-whisper's default: filled where a case ran, else as predicted.

    `cases` and `card` as of `analysis.which_fits`.
    """
    return draw(answer(cases, card))


@theme.styled()
def draw(found: WhichFits, *, title: bool = True) -> Figure:
    """`which_fits` of what is known already; without a title where one stands above it."""
    figure, ax = theme.new_axes(theme.rows_height(len(found.rows), each_in=_ROW_IN) - 0.6)
    for y, row in enumerate(found.rows):
        _draw_row(ax, y, row)
    names = [f"{row.asr_model} {row.asr_backend} {row.asr_dtype}" for row in found.rows]
    best = found.rows.index(found.pick) if found.pick else None
    ax.set_yticks(range(len(names)), names, fontsize=theme.CAPTION_POINTS)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(visible=False, axis="y")
    if best is not None:
        ax.get_yticklabels()[best].set_fontweight("bold")
    _divide_sizes(ax, found)
    ax.set_xlim(0, max(max(row.moments.values(), default=0.0) for row in found.rows) / GIB * 1.03)
    elements.draw_capacity(ax, [found.capacity_bytes], ax.get_xlim()[1] * GIB)
    _notes(ax, found)
    ax.set_xlabel("memory in use on the card (GiB)")
    elements.legend_below(ax, handles=_handles(found), columns=4)
    return theme.finish(figure, fit_words.headline(found) if title else "", _caption(found))


def _draw_row(ax: Axes, y: int, row: PairFit) -> None:
    ran = row.evidence != "predicted"
    for lift, (moment, (colour, _)) in zip(_LIFTS, MOMENT_LOOK.items(), strict=True):
        width = (row.moments.get(moment, 0.0) - row.others_bytes) / GIB
        bar: dict[str, Any] = {"height": _BAR, "left": row.others_bytes / GIB, "zorder": 3}
        if ran:
            bar |= {"color": colour, "hatch": _HATCHES[moment], "edgecolor": "white"}
            ax.barh(y + lift, width, **bar, linewidth=0.3)
        else:
            ax.barh(y + lift, width, **bar, facecolor="none", edgecolor=colour, linewidth=1.1)
    if row.others_bytes:
        base: dict[str, Any] = {"color": OWNER_LOOK["base"][0], "height": 3 * _BAR, "zorder": 3}
        ax.barh(y, row.others_bytes / GIB, **base)
    if row.predicted is not None:
        ends = [row.predicted.low / GIB, row.predicted.high / GIB]
        ax.plot(ends, [y, y], color="black", linewidth=1.2, zorder=5)
        ax.plot(row.predicted.expected / GIB, y, **_MARK)


def _divide_sizes(ax: Axes, found: WhichFits) -> None:
    for y, (row, later) in enumerate(zip(found.rows, found.rows[1:], strict=False)):
        if row.asr_model != later.asr_model:
            ax.axhline(y + 0.5, color=GUIDE, linewidth=0.6, zorder=1)


def _notes(ax: Axes, found: WhichFits) -> None:
    """To the right of each row what it leaves, and what breaks first."""
    place: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    place |= {"xycoords": ax.get_yaxis_transform(), "va": "center", "fontsize": 9.5}
    for y, row in enumerate(found.rows):
        sign = "✓" if row.fits else "✗"
        words = " · ".join(filter(None, [fit_words.verdict(row), fit_words.breaks_first(row)]))
        weight = "bold" if row == found.pick else "normal"
        ax.annotate(f"{sign} {words}", (1.012, y), (0, 0), fontweight=weight, **place)
    heading = "left free · what breaks first"
    ax.annotate(heading, (1.012, -0.55), (0, 27), color=MUTED, **place)


def _handles(found: WhichFits) -> list[Any]:
    handles: list[Any] = []
    for moment, (colour, _) in MOMENT_LOOK.items():
        look: dict[str, Any] = {"facecolor": "none", "edgecolor": colour}
        if found.n_run:
            look = {"facecolor": colour, "edgecolor": "white", "hatch": _HATCHES[moment]}
        handles.append(Patch(label=labels.MOMENTS[moment], **look))
    if any(row.others_bytes for row in found.rows):
        handles.append(Patch(facecolor=OWNER_LOOK["base"][0], label="driver, other programs"))
    if found.n_run < len(found.rows):
        handles.append(
            Patch(facecolor="none", edgecolor=CAPACITY_COLOUR, label="hollow: predicted, not run")
        )
    handles.append(Line2D([], [], label="prediction of the highest, range", **_MARK))
    return handles


def _caption(found: WhichFits) -> str:
    words = [f"n = {kind}" for kind in fit_words.evidence(found)]
    words.append("no interval: one case for each pair" if found.n_run else "no interval")
    words.append(f"Voxtral {found.llm_model} in {found.llm_dtype}, both resident")
    if len(found.cases):
        words += theme.origin(found.cases)
    elif found.card is not None:
        words += [
            "weights: true sizes from the catalog",
            f"card {found.card.name}, no memory limit",
        ]
    if any(row.longest_audio_s for row in found.rows):
        words.append(f"breaks over … s of audio: predicted, with {fit_words.MARGIN}")
    for why in dict.fromkeys(found.reasons.values()):
        names = ", ".join(name for name, reason in found.reasons.items() if reason == why)
        words.append(f"{names} did not run{f': {why}' if why else ''}")
    return "\N{NO-BREAK SPACE}· ".join(words)
