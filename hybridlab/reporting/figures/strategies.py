"""Figures that compare arms: latency and its distribution (s), throughput, and the trade of latency
for memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from hybridlab.analysis.arms import ArmStats, numbers
from hybridlab.analysis.arms import Figure as Quantity
from hybridlab.analysis.differences import BEYOND, how_sure
from hybridlab.analysis.stats import Interval, tail
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import (
    fastest_words,
    pareto_finding,
    pareto_front,
    pooled_words,
    throughput_finding,
)
from hybridlab.reporting.palette import CAPACITY_COLOUR, DASHES, GUIDE, strategy_look, tint
from hybridlab.reporting.rows import (
    RACE,
    arm_intervals,
    arms_of,
    case_labels,
    cases_of,
    is_first,
    ordered,
    present,
    race_standings,
    strategies_first,
)
from hybridlab.units import counted, format_bytes, format_number, format_seconds

LOG_FROM_RATIO = 30  # slowest over fastest from which an axis of time becomes logarithmic
MOST_MARKERS = 5  # of the steps of a distribution so many have a marker

# --------------------------------------------------------------------------------------- latency


@theme.styled(timed=True)
def latency(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Every request of every arm, with the median and its 95 % interval; first requests, which the
    tables have, are left out."""
    rows = arms_of(trials)
    rows = rows[~is_first(rows)]
    intervals = arm_intervals(rows)
    if not intervals:
        return theme.nothing_to_show("No request was timed beyond the first, so no latency.")
    arms = strategies_first(list(intervals))
    figure, ax = theme.new_axes(theme.rows_height(len(arms), each_in=0.66))
    for y, arm in enumerate(arms):
        _draw_requests(ax, y, rows[rows["arm"] == arm])
    _draw_medians(ax, [intervals[arm] for arm in arms])
    standings = race_standings(cases, trials) if cases is not None else []
    names = [_arm_name(arm, rows, intervals[arm].n) for arm in arms]
    elements.name_rows(ax, names, best=_sure_best(arms, standings, "latency"))
    notes = [labels.bracketed(intervals[arm], format_seconds, "\n") for arm in arms]
    elements.note_column(ax, enumerate(notes))
    time_axis(ax, rows["latency_s"], "latency of a request (s)")
    served = counted(len(rows), "request")
    return theme.captioned(
        figure,
        fastest_words(standings) if standings else "Every request of every arm",
        rows,
        cases,
        n=f"{served} in {counted(len(arms), 'arm')}, first ones left out",
        interval=f"bar and brackets: {theme.STUDENT} of the cases' medians",
        notes=(
            pooled_words(rows),
            "a dot is a request: a clip and a question in, a transcript and an answer out",
        ),
    )


def _sure_best(arms: Sequence[str], ranked: Sequence[ArmStats], of: Quantity) -> int | None:
    """The row of the first of these standings, where it is told from all others."""
    if not ranked or ranked[0].arm not in arms or how_sure(ranked[0], ranked, of) != BEYOND:
        return None
    return arms.index(ranked[0].arm)


def _draw_requests(ax: Axes, y: float, rows: pd.DataFrame) -> None:
    colour, marker = strategy_look(str(rows["strategy"].iloc[0]))
    # steps of the golden ratio keep dots apart, and the same rows give the same picture
    spread = ((np.arange(len(rows)) * 0.618034) % 1 - 0.5) * 0.42
    dots: dict[str, Any] = {"alpha": 0.55, "markersize": 6, "mec": "none", "zorder": 3}
    ax.plot(rows["latency_s"], y + spread, marker, color=colour, **dots)


def _draw_medians(ax: Axes, intervals: list[Interval]) -> None:
    look: dict[str, Any] = {"marker": "|", "markersize": 34, "markeredgewidth": 2.4}
    look |= {"color": "black", "zorder": 5}
    for y, own in enumerate(intervals):
        ax.plot(own.value, y, linestyle="none", **look)
        if not math.isnan(own.low):
            ax.hlines(y, own.low, own.high, color="black", linewidth=3.2, zorder=5)


def _arm_name(arm: str, rows: pd.DataFrame, n: int) -> str:
    """'sequential/plain (n = 5 rounds)', and whether its texts differ from a model's alone."""
    matches = present(rows[rows["arm"] == arm], "output_matches_reference")
    differ = "" if matches.astype(bool).all() else ", texts differ"
    return f"{arm}\n(n = {counted(n, 'round')}{differ})"


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


# ---------------------------------------------------------------------------------- distribution


@theme.styled(timed=True)
def latency_ecdf(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Share of requests served within a time, per arm; first requests left out."""
    rows = arms_of(trials)
    rows = rows[~is_first(rows)]
    if rows.empty:
        return theme.nothing_to_show("No request was timed beyond the first, so no distribution.")
    figure, ax = theme.new_axes(4.8)
    seen: list[str] = []
    for arm in strategies_first(list(rows["arm"].unique())):
        own = rows[rows["arm"] == arm]
        strategy = str(own["strategy"].iloc[0])
        p95_s = tail(own["latency_s"])
        late = "" if np.isnan(p95_s) else f", p95 {format_seconds(p95_s)}"
        label = f"{arm} (n = {len(own)}{late})"
        draw_ecdf(ax, own["latency_s"], strategy, seen.count(strategy), label)
        seen.append(strategy)
    ax.axhline(95, color=GUIDE, linewidth=1, linestyle=":")
    ax.set(ylim=(0, 103), ylabel="requests served (%)")
    low, high = float(rows["latency_s"].min()), float(rows["latency_s"].max())
    time_axis(ax, rows["latency_s"], "within (s)")
    if high < 4 * low:  # a distribution needs no zero
        ax.set_xlim(low - 0.15 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    elements.legend_below(ax, columns=2)
    return theme.captioned(
        figure,
        _ecdf_finding(rows),
        rows,
        cases,
        n=f"{counted(len(rows), 'request')}, first ones left out",
        interval="no interval: every request is a step",
        notes=("dotted: 95 %", pooled_words(rows)),
    )


def draw_ecdf(
    ax: Axes, values: pd.Series[float], strategy: str, place: int, label: str, *, most: int = 0
) -> None:
    """The share of `values` up to each of them in %: the strategy's colour and marker, and the
    dash of a `place`. Not more than `most` steps have a marker (0: `MOST_MARKERS`)."""
    colour, marker = strategy_look(strategy)
    every = max(1, len(values) // (most or MOST_MARKERS))
    look: dict[str, Any] = {"linestyle": DASHES[place % len(DASHES)], "linewidth": 2.0}
    look |= {"marker": marker, "markersize": 5.5, "markevery": slice(1, None, every)}
    sns.ecdfplot(x=values, stat="percent", ax=ax, color=colour, label=label, **look)


def _ecdf_finding(rows: pd.DataFrame) -> str:
    """By p95 where every arm has requests enough for one, else by the median."""
    seconds = rows.groupby("arm")["latency_s"]
    late, words = seconds.agg(tail), "95 % of requests finish"
    if late.isna().any():
        late, words = seconds.median(), "Half of the requests finish"
    best, worst = str(late.idxmin()), str(late.idxmax())
    title = f"{words} within {format_seconds(late[best])} ({best})"
    if best != worst:
        title += f" to {format_seconds(late[worst])} ({worst})"
    return title


# ------------------------------------------------------------------------------------ throughput


@theme.styled(timed=True)
def throughput(cases: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Requests per minute of each arm: a dot per case, a bar at their median."""
    standings = race_standings(cases, trials)
    finding = throughput_finding(standings)
    rows = cases.assign(per_minute=numbers(cases, "throughput_rps") * 60)
    rows = rows[rows["per_minute"].notna()]
    race = cases_of(rows, RACE)
    rows = ordered(race if len(race) else rows)
    if rows.empty:
        return theme.nothing_to_show("No case has a throughput.")
    rows = rows.assign(label=case_labels(rows))
    groups = rows.groupby("label", sort=False)
    medians, counts = groups["per_minute"].median(), groups.size()
    looks = {name: strategy_look(str(own["strategy"].iloc[0]))[0] for name, own in groups}
    figure, ax = theme.new_axes(theme.rows_height(len(medians)))
    shown: dict[str, Any] = {"data": rows, "x": "per_minute", "y": "label", "hue": "label"}
    bars = {name: tint(colour, 0.35) for name, colour in looks.items()}
    sns.barplot(
        **shown, palette=bars, estimator="median", errorbar=None, saturation=1, width=0.6, ax=ax
    )
    sns.stripplot(**shown, palette=looks, jitter=False, size=8, zorder=3, ax=ax)
    rated = [arm for arm in standings if not math.isnan(arm.rate.value)]
    rated.sort(key=lambda arm: -arm.rate.value)
    names = list(map(str, medians.index))
    elements.name_rows(ax, names, best=_sure_best(names, rated, "throughput"))
    ax.set(xlim=(0, None), xlabel="requests per minute", ylabel="")
    notes = [
        f"{format_number(median)} / min\n(n = {n})"
        for median, n in zip(medians, counts, strict=True)
    ]
    elements.note_column(ax, enumerate(notes))
    return theme.captioned(
        figure,
        finding or "Requests per minute of every arm",
        rows,
        cases,
        n=counted(len(rows), "case"),
        interval="no interval: every case is a dot, their median a bar",
    )


# ------------------------------------------------------------------------ latency against memory


@theme.styled(timed=True)
def pareto(cases: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Every arm of the races: latency as a multiple of the control's, with its peak memory; the
    filled ones are not beaten in both by another."""
    arms = [arm for arm in race_standings(cases, trials) if not math.isnan(arm.peak_bytes)]
    if not arms:
        return theme.nothing_to_show("No race case can be compared, so there is no trade.")
    race = cases_of(cases, RACE)
    place = strategies_first(list((race["strategy"] + "/" + race["variant"]).unique()))
    arms.sort(key=lambda arm: place.index(arm.arm))
    front = pareto_front(arms)
    figure, ax = theme.new_axes(theme.rows_height(len(arms), each_in=0.46))
    for y, arm in enumerate(arms):
        colour, marker = strategy_look(arm.strategy)
        face = colour if arm in front else "white"
        ax.plot(arm.relative.value, y, marker, mfc=face, mec=colour, markersize=10, zorder=4)
        if not math.isnan(arm.relative.low):
            ax.hlines(y, arm.relative.low, arm.relative.high, color=colour, linewidth=2.4)
    notes = [f"{arm.relative.value:.2f} x · peak {format_bytes(arm.peak_bytes)}" for arm in arms]
    elements.note_column(ax, enumerate(notes))
    elements.name_rows(ax, [arm.arm for arm in arms], best=arms.index(front[0]))
    ax.axvline(1.0, color=CAPACITY_COLOUR, linestyle="--", linewidth=1.2)
    ax.set_xlim(left=0)
    ax.set_xlabel("latency over that of sequential/plain in the same notebook")
    rounds = counted(sum(arm.n for arm in arms), "case")
    return theme.captioned(
        figure,
        pareto_finding(front, arms),
        race,
        cases,
        n=f"{rounds} of {counted(len(arms), 'arm')}",
        interval=f"bar: {theme.STUDENT} over rounds",
        notes=(
            "filled: no other's mean is both faster and smaller",
            "peak: the highest of any case",
        ),
    )
