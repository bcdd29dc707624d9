"""Throughput: requests per minute of each arm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.ordering import ordered
from hybridlab.reporting.palette import strategy_look, tint
from hybridlab.reporting.rows import case_labels, cases_of
from hybridlab.results.reader import has_clock
from hybridlab.units import format_number


@theme.styled(cases=("experiment", "strategy"))
def throughput(cases: pd.DataFrame) -> Figure:
    """Requests per minute of each arm: a dot per case, a bar at their median."""
    if not has_clock(cases):
        return theme.nothing_to_show(theme.NO_CLOCK)
    rows = cases.assign(per_minute=numbers(cases, "throughput_rps") * 60)
    rows = rows[rows["per_minute"].notna()]
    race = cases_of(rows, "strategy_comparison") if len(rows) else rows
    rows = ordered(race if len(race) else rows)
    if rows.empty:
        return theme.nothing_to_show("No case has a throughput.")
    rows = rows.assign(label=case_labels(rows))
    groups = rows.groupby("label", sort=False)
    medians = groups["per_minute"].median()
    figure, ax = theme.new_axes(theme.rows_height(len(medians)))
    for y, (_, own) in enumerate(groups):
        colour, marker = strategy_look(str(own["strategy"].iloc[0]))
        ax.barh(y, own["per_minute"].median(), height=0.6, color=tint(colour, 0.35), zorder=2)
        dots = np.full(len(own), y)
        ax.plot(own["per_minute"], dots, marker, color=colour, markersize=8, zorder=3)
    best = int(medians.to_numpy().argmax())
    elements.name_rows(ax, list(map(str, medians.index)), best=best)
    ax.set_xlim(left=0)
    ax.set_xlabel("requests per minute")
    counts = groups.size()
    elements.note_column(
        ax,
        enumerate(
            f"{format_number(median)} / min\n(n = {counts[str(label)]})"
            for label, median in medians.items()
        ),
    )
    words = caption(
        rows,
        cases,
        n=labels.counted(len(rows), "case"),
        interval="no interval: every case is a dot, their median a bar",
    )
    return theme.finish(figure, _finding(medians.sort_values(ascending=False)), words)


def _finding(ranked: pd.Series[float]) -> str:
    title = f"{ranked.index[0]} serves most: {format_number(ranked.iloc[0])} requests per minute"
    if len(ranked) > 1:
        title += f", {ranked.index[-1]} least: {format_number(ranked.iloc[-1])}"
    return title
