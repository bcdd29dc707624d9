"""The distribution of latency: the share of requests served within a time (s), per arm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.stats import Array, ecdf
from hybridlab.reporting.figures import marks, order, speed, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import DASHES, strategy_look
from hybridlab.units import format_seconds

#: Markers on a curve: of more requests so many are marked.
MOST_MARKERS = 5


@style.styled(trials=speed.COLUMNS)
def latency_ecdf(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Share of requests served within a time, per arm; first requests left out."""
    rows = speed.arms_of(trials)
    rows = rows[~speed.is_first(rows)] if len(rows) else rows
    if rows.empty:
        return style.nothing_to_show("No request was timed beyond the first, so no distribution.")
    figure, ax = style.new_axes(4.8)
    p95: dict[str, float] = {}
    seen: dict[str, int] = {}
    for arm in order.strategies_first(list(rows["arm"].unique())):
        group = rows[rows["arm"] == arm]
        values, share = ecdf(group["latency_s"])
        strategy = str(group["strategy"].iloc[0])
        p95[arm] = float(np.quantile(values, 0.95))
        label = f"{arm} (n = {len(values)}, p95 {format_seconds(p95[arm])})"
        draw_steps(ax, values, share * 100, strategy, seen.get(strategy, 0), label)
        seen[strategy] = seen.get(strategy, 0) + 1
    ax.axhline(95, color="#888888", linewidth=1, linestyle=":")
    ax.set_ylim(0, 103)
    ax.set_ylabel("requests served (%)")
    low, high = float(rows["latency_s"].min()), float(rows["latency_s"].max())
    speed.time_axis(ax, rows["latency_s"], "within (s)")
    if high < 4 * low:  # a distribution needs no zero
        ax.set_xlim(low - 0.15 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    marks.legend_below(ax, columns=2)
    words = caption(
        rows,
        cases,
        n=f"{wording.counted(len(rows), 'request')}, first ones left out",
        interval="no interval: every request is a step",
        notes=("dotted: 95 %", speed.pooled_words(rows)),
    )
    return style.finish(figure, _finding(p95), words)


def draw_steps(
    ax: Axes, values: Array, share: Array, strategy: str, variant: int, label: str
) -> None:
    """A curve of steps that starts at zero: the strategy's colour and marker, the variant's
    dash."""
    marker, colour = strategy_look(strategy)
    ax.step(
        np.concatenate([values[:1], values]),
        np.concatenate([[0.0], share]),
        where="post",
        color=colour,
        linestyle=DASHES[variant % len(DASHES)],
        linewidth=2.0,
        marker=marker,
        markersize=5.5,
        markevery=slice(1, None, max(1, len(values) // MOST_MARKERS)),
        label=label,
    )


def _finding(p95: dict[str, float]) -> str:
    best, worst = min(p95, key=lambda arm: p95[arm]), max(p95, key=lambda arm: p95[arm])
    title = f"95 % of requests finish within {format_seconds(p95[best])} ({best})"
    if best != worst:
        title += f" to {format_seconds(p95[worst])} ({worst})"
    return title
