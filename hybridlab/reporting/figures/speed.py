"""Latency (s) of the arms that a race compares: every request, medians and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.reporting.figures import marks, order, style, wording
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.palette import MUTED, strategy_look
from hybridlab.units import format_seconds

FIRST_SHOWN_RATIO = 4  # a first request slower than so many times all others leaves the axis
LOG_FROM_RATIO = 30  # slowest over fastest from which an axis of time becomes logarithmic
COLUMNS = ("experiment", "strategy", "variant", "latency_s", "first")


def arms_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that compare strategies (the race where there is one), with a column `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    race = trials[trials["experiment"] == "race"]
    rows = race if len(race) else trials
    rows = rows.assign(latency_s=wording.numbers(rows, "latency_s"))
    rows = rows[rows["latency_s"].notna()]
    keys = rows[["strategy", "variant"]].drop_duplicates()
    names = {tuple(row.fillna("")): wording.arm_label(row) for _, row in keys.iterrows()}
    pairs = zip(rows["strategy"].fillna(""), rows["variant"].fillna(""), strict=True)
    return rows.assign(arm=pd.Series([names[p] for p in pairs], index=rows.index, dtype=str))


def is_first(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials are the first request of their case."""
    return trials["first"].fillna(False).astype(bool)


def arm_intervals(trials: pd.DataFrame) -> dict[str, Interval]:
    """Median latency in seconds with its interval per arm, first requests left out."""
    later = trials[~is_first(trials)]
    return {
        str(arm): bootstrap_interval(rows["latency_s"])
        for arm, rows in later.groupby("arm", sort=False)
    }


@style.styled(trials=COLUMNS)
def latency(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Every request of every arm, with the median and its 95 % interval; first requests hollow."""
    rows = arms_of(trials)
    intervals = arm_intervals(rows)
    if not intervals:
        return style.nothing_to_show("No request was timed beyond the first, so no latency.")
    arms = order.strategies_first(list(intervals))
    rows = rows[rows["arm"].isin(arms)]
    figure, ax = style.new_axes(style.rows_height(len(arms), each_in=0.66))
    for y, arm in enumerate(arms):
        _draw_arm(ax, y, rows[rows["arm"] == arm], intervals[arm])
    names = [_arm_name(arm, rows, intervals[arm].n) for arm in arms]
    best = min(range(len(arms)), key=lambda y: intervals[arms[y]].value)
    marks.name_rows(ax, names, best=best)
    marks.note_column(ax, [(y, interval_words(intervals[arm])) for y, arm in enumerate(arms)])
    reach = _reach_s(rows)
    time_axis(ax, rows["latency_s"].clip(upper=reach), "latency of a request (s)")
    _bound_firsts(ax, rows, arms, reach)
    marks.legend_below(ax, handles=_handles(rows))
    served = sum(interval.n for interval in intervals.values())
    words = caption(
        rows,
        cases,
        n=f"{wording.counted(served, 'request')} in {wording.counted(len(arms), 'arm')}",
        interval=f"bar and brackets: {BOOTSTRAP} of the median",
        notes=(
            pooled_words(rows),
            "a request: a clip and a question in, a transcript and an answer out",
        ),
    )
    return style.finish(figure, fastest_words(intervals, pooled=is_pooled(rows)), words)


def _draw_arm(ax: Axes, y: float, rows: pd.DataFrame, interval: Interval) -> None:
    marker, colour = strategy_look(str(rows["strategy"].iloc[0]))
    first = is_first(rows)
    values = rows.loc[~first, "latency_s"].to_numpy()
    dots: dict[str, Any] = {"alpha": 0.55, "markersize": 6, "mec": "none", "zorder": 3}
    ax.plot(values, y + marks.spread(len(values), 0.42), marker, color=colour, **dots)
    hollow = rows.loc[first, "latency_s"].to_numpy()
    ax.plot(hollow, np.full(len(hollow), y), marker, mfc="none", mec=colour, markersize=9, zorder=4)
    if np.isfinite(interval.low):
        ax.hlines(y, interval.low, interval.high, color="black", linewidth=3.2, zorder=5)
    ax.vlines(interval.value, y - 0.3, y + 0.3, color="black", linewidth=2.4, zorder=5)


def _reach_s(rows: pd.DataFrame) -> float:
    """Where the axis of latency ends: beyond all counted requests, and beyond the first ones
    unless they would press the others together."""
    first = is_first(rows)
    counted, highest = float(rows.loc[~first, "latency_s"].max()), float(rows["latency_s"].max())
    return highest * 1.05 if highest <= FIRST_SHOWN_RATIO * counted else counted * 1.6


def _bound_firsts(ax: Axes, rows: pd.DataFrame, arms: list[str], reach_s: float) -> None:
    """End the axis at `reach_s`; first requests beyond it are written at its edge."""
    ax.set_xlim(right=reach_s)
    beyond = rows[is_first(rows) & (rows["latency_s"] > reach_s)]
    for arm, group in beyond.groupby("arm", sort=False):
        ax.text(
            0.99,
            arms.index(str(arm)),
            f"first: {format_seconds(float(group['latency_s'].median()))} →",
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=10,
            color=MUTED,
        )


def _arm_name(arm: str, rows: pd.DataFrame, n: int) -> str:
    """'sequential plain (n = 16)', and whether its texts differ from those of a tenant alone."""
    parity = wording.present(rows[rows["arm"] == arm], "parity")
    differs = len(parity) > 0 and not parity.astype(bool).all()
    return f"{arm}\n(n = {n}{', texts differ' if differs else ''})"


def interval_words(interval: Interval) -> str:
    """'1.23 s\\n[1.20 s, 1.26 s]'."""
    words = format_seconds(interval.value)
    if np.isfinite(interval.low):
        words += f"\n[{format_seconds(interval.low)}, {format_seconds(interval.high)}]"
    return words


def fastest_words(intervals: dict[str, Interval], *, pooled: bool = False) -> str:
    """The finding: which arm is fastest, or that the intervals do not say.

    Arms `pooled` over notebooks did not take turns with each other, so no ratio is claimed.
    """
    ranked = sorted(intervals, key=lambda arm: intervals[arm].value)
    best, value = intervals[ranked[0]], format_seconds(intervals[ranked[0]].value)
    if len(ranked) == 1:
        return f"{ranked[0]} takes {value} per request"
    if any(not np.isfinite(intervals[arm].low) for arm in ranked[:2]):
        return f"{ranked[0]} has the lowest median, {value}, of too few requests for an interval"
    ties = [arm for arm in ranked[1:] if best.overlaps(intervals[arm])]
    if ties:
        return (
            f"{ranked[0]} has the lowest median, {value}, but its interval overlaps that of "
            f"{wording.first_and_more(ties)}"
        )
    if pooled:
        return (
            f"{ranked[0]} has the lowest median, {value} per request; arms took turns within a "
            + ("notebook only")
        )
    ratio = intervals[ranked[1]].value / best.value
    return f"{ranked[0]} is fastest: {value} per request, {ratio:.3g} times as fast as {ranked[1]}"


def pooled_words(rows: pd.DataFrame) -> str:
    """Says which notebooks the rows come from where there are several."""
    notebooks = sorted({str(name)[:2] for name in wording.present(rows, "notebook")})
    return f"pooled over notebooks {', '.join(notebooks)}" if len(notebooks) > 1 else ""


def is_pooled(rows: pd.DataFrame) -> bool:
    """Whether the rows come from several notebooks; arms are interleaved within one only."""
    return bool(pooled_words(rows))


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
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        label += ", logarithmic"
    else:
        ax.set_xlim(left=0)
    ax.set_xlabel(label)
