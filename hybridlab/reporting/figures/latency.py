"""Latency (s) of the arms that a race compares: every request, medians and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from hybridlab.analysis.stats import Interval
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.ordering import strategies_first
from hybridlab.reporting.palette import MUTED, strategy_look
from hybridlab.reporting.rows import arm_intervals, arms_of, is_first, present
from hybridlab.units import format_seconds

FIRST_SHOWN_RATIO = 4  # a first request slower than so many times all others leaves the axis
LOG_FROM_RATIO = 30  # slowest over fastest from which an axis of time becomes logarithmic
COLUMNS = ("experiment", "strategy", "variant", "latency_s", "is_first_request")


@theme.styled(trials=COLUMNS)
def latency(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Every request of every arm, with the median and its 95 % interval; first requests hollow."""
    rows = arms_of(trials)
    intervals = arm_intervals(rows)
    if not intervals:
        return theme.nothing_to_show("No request was timed beyond the first, so no latency.")
    arms = strategies_first(list(intervals))
    rows = rows[rows["arm"].isin(arms)]
    figure, ax = theme.new_axes(theme.rows_height(len(arms), each_in=0.66))
    for y, arm in enumerate(arms):
        _draw_arm(ax, y, rows[rows["arm"] == arm], intervals[arm])
    names = [_arm_name(arm, rows, intervals[arm].n) for arm in arms]
    best = min(range(len(arms)), key=lambda y: intervals[arms[y]].value)
    elements.name_rows(ax, names, best=best)
    elements.note_column(ax, [(y, _interval(intervals[arm])) for y, arm in enumerate(arms)])
    reach = _reach_s(rows)
    time_axis(ax, rows["latency_s"].clip(upper=reach), "latency of a request (s)")
    _bound_firsts(ax, rows, arms, reach)
    elements.legend_below(ax, handles=_handles(rows))
    served = sum(interval.n for interval in intervals.values())
    words = caption(
        rows,
        cases,
        n=f"{labels.counted(served, 'request')} in {labels.counted(len(arms), 'arm')}",
        interval=f"bar and brackets: {BOOTSTRAP} of the median",
        notes=(
            pooled_words(rows),
            "a request: a clip and a question in, a transcript and an answer out",
        ),
    )
    return theme.finish(figure, fastest_words(intervals, pooled=bool(pooled_words(rows))), words)


def _draw_arm(ax: Axes, y: float, rows: pd.DataFrame, interval: Interval) -> None:
    colour, marker = strategy_look(str(rows["strategy"].iloc[0]))
    first = is_first(rows)
    values = rows.loc[~first, "latency_s"].to_numpy()
    # steps of the golden ratio keep dots apart, and the same rows give the same picture
    spread = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.42
    dots: dict[str, Any] = {"alpha": 0.55, "markersize": 6, "mec": "none", "zorder": 3}
    ax.plot(values, y + spread, marker, color=colour, **dots)
    hollow = rows.loc[first, "latency_s"].to_numpy()
    ax.plot(hollow, np.full(len(hollow), y), marker, mfc="none", mec=colour, markersize=9, zorder=4)
    if np.isfinite(interval.low):
        ax.hlines(y, interval.low, interval.high, color="black", linewidth=3.2, zorder=5)
    ax.vlines(interval.value, y - 0.3, y + 0.3, color="black", linewidth=2.4, zorder=5)


def _reach_s(rows: pd.DataFrame) -> float:
    """Where the axis of latency ends: beyond all counted requests, and beyond the first ones
    unless they would press the others together."""
    counted = float(rows.loc[~is_first(rows), "latency_s"].max())
    highest = float(rows["latency_s"].max())
    return highest * 1.05 if highest <= FIRST_SHOWN_RATIO * counted else counted * 1.6


def _bound_firsts(ax: Axes, rows: pd.DataFrame, arms: list[str], reach_s: float) -> None:
    """End the axis at `reach_s`; first requests beyond it are written at its edge."""
    ax.set_xlim(right=reach_s)
    beyond = rows[is_first(rows) & (rows["latency_s"] > reach_s)]
    for arm, own in beyond.groupby("arm", sort=False):
        words = f"first: {format_seconds(float(own['latency_s'].median()))} →"
        look: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 10, "color": MUTED}
        ax.text(0.99, arms.index(str(arm)), words, transform=ax.get_yaxis_transform(), **look)


def _arm_name(arm: str, rows: pd.DataFrame, n: int) -> str:
    """'sequential/plain (n = 16)', and whether its texts differ from those of a model alone."""
    output_matches_reference = present(rows[rows["arm"] == arm], "output_matches_reference")
    differs = len(output_matches_reference) > 0 and not output_matches_reference.astype(bool).all()
    return f"{arm}\n(n = {n}{', texts differ' if differs else ''})"


def _interval(interval: Interval) -> str:
    """'1.23 s\\n[1.20 s, 1.26 s]'."""
    words = format_seconds(interval.value)
    if np.isfinite(interval.low):
        words += f"\n[{format_seconds(interval.low)}, {format_seconds(interval.high)}]"
    return words


def fastest_words(intervals: dict[str, Interval], *, pooled: bool = False) -> str:
    """The finding: which arm is fastest, or that the intervals do not say.

    Arms `pooled` over notebooks did not take turns with each other, so no ratio is claimed.
    """
    first, *others = sorted(intervals, key=lambda arm: intervals[arm].value)
    best = intervals[first]
    value = format_seconds(best.value)
    if not others:
        return f"{first} takes {value} per request"
    if any(not np.isfinite(intervals[arm].low) for arm in (first, others[0])):
        return f"{first} has the lowest median, {value}, of too few requests for an interval"
    ties = [arm for arm in others if best.overlaps(intervals[arm])]
    if ties:
        return (
            f"{first} has the lowest median, {value}, but its interval overlaps that of "
            f"{labels.first_and_more(ties)}"
        )
    if pooled:
        return (
            f"{first} has the lowest median, {value} per request; arms took turns within a "
            "notebook only"
        )
    ratio = intervals[others[0]].value / best.value
    return f"{first} is fastest: {value} per request, {ratio:.3g} times as fast as {others[0]}"


def pooled_words(rows: pd.DataFrame) -> str:
    """Which notebooks the rows come from where there are several, within which alone arms took
    turns; else ''."""
    notebooks = sorted({str(name)[:2] for name in present(rows, "notebook")})
    return f"pooled over notebooks {', '.join(notebooks)}" if len(notebooks) > 1 else ""


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    grey: dict[str, Any] = {"linestyle": "", "color": MUTED}
    handles = [Line2D([], [], marker="o", alpha=0.6, label="a request", **grey)]
    if is_first(rows).any():
        hollow = Line2D([], [], marker="o", mfc="none", label="first request, not counted", **grey)
        handles.append(hollow)
    bar = Line2D([], [], color="black", linewidth=3.2, label=f"median, {BOOTSTRAP}")
    return [*handles, bar]


def time_axis(ax: Axes, values: pd.Series[float], label: str) -> None:
    """Seconds from zero, or logarithmic where they span too much."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > LOG_FROM_RATIO:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        label += ", logarithmic"
    else:
        ax.set_xlim(left=0)
    ax.set_xlabel(label)
