"""The distribution of latency: the share of requests served within a time (s), per arm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.latency import COLUMNS, pooled_words, time_axis
from hybridlab.reporting.ordering import strategies_first
from hybridlab.reporting.palette import DASHES, GUIDE, strategy_look
from hybridlab.reporting.rows import arms_of, is_first
from hybridlab.units import format_seconds

#: Markers on a curve: of more steps so many are marked.
MOST_MARKERS = 5


@theme.styled(trials=COLUMNS)
def latency_ecdf(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Share of requests served within a time, per arm; first requests left out."""
    rows = arms_of(trials)
    rows = rows[~is_first(rows)] if len(rows) else rows
    if rows.empty:
        return theme.nothing_to_show("No request was timed beyond the first, so no distribution.")
    figure, ax = theme.new_axes(4.8)
    p95: dict[str, float] = {}
    seen: dict[str, int] = {}
    for arm in strategies_first(list(rows["arm"].unique())):
        own = rows[rows["arm"] == arm]
        strategy = str(own["strategy"].iloc[0])
        p95[arm] = float(np.quantile(own["latency_s"], 0.95))
        label = f"{arm} (n = {len(own)}, p95 {format_seconds(p95[arm])})"
        draw_ecdf(ax, own["latency_s"], strategy, seen.get(strategy, 0), label)
        seen[strategy] = seen.get(strategy, 0) + 1
    ax.axhline(95, color=GUIDE, linewidth=1, linestyle=":")
    ax.set(ylim=(0, 103), ylabel="requests served (%)")
    low, high = float(rows["latency_s"].min()), float(rows["latency_s"].max())
    time_axis(ax, rows["latency_s"], "within (s)")
    if high < 4 * low:  # a distribution needs no zero
        ax.set_xlim(low - 0.15 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    elements.legend_below(ax, columns=2)
    words = caption(
        rows,
        cases,
        n=f"{labels.counted(len(rows), 'request')}, first ones left out",
        interval="no interval: every request is a step",
        notes=("dotted: 95 %", pooled_words(rows)),
    )
    return theme.finish(figure, _finding(p95), words)


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


def _finding(p95: dict[str, float]) -> str:
    best, worst = min(p95, key=lambda arm: p95[arm]), max(p95, key=lambda arm: p95[arm])
    title = f"95 % of requests finish within {format_seconds(p95[best])} ({best})"
    if best != worst:
        title += f" to {format_seconds(p95[worst])} ({worst})"
    return title
