"""Throughput: requests per minute of each arm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.order import ordered
from hybridlab.reporting.figures.palette import strategy_look
from hybridlab.results.records import has_clock
from hybridlab.units import format_number


@style.styled(cases=("experiment", "strategy"))
def throughput(cases: pd.DataFrame) -> Figure:
    """Requests per minute of each arm: a dot per case, a bar at their median."""
    if not has_clock(cases):
        return style.nothing_to_show(style.NO_CLOCK)
    rows = cases.assign(per_minute=wording.numbers(cases, "throughput_rps") * 60)
    rows = rows[rows["per_minute"].notna()]
    race = rows[rows["experiment"] == "race"] if len(rows) else rows
    rows = ordered(race if len(race) else rows)
    if rows.empty:
        return style.nothing_to_show("No case has a throughput.")
    rows = rows.assign(label=wording.case_labels(rows))
    medians = rows.groupby("label", sort=False)["per_minute"].median()
    figure, ax = style.new_axes(style.rows_height(len(medians)))
    for y, (label, median) in enumerate(medians.items()):
        group = rows[rows["label"] == label]
        marker, colour = strategy_look(str(group["strategy"].iloc[0]))
        ax.barh(y, median, height=0.6, color=colour, alpha=0.35, zorder=2)
        dots = np.full(len(group), y)
        ax.plot(group["per_minute"], dots, marker, color=colour, markersize=8, zorder=3)
    best = int(medians.to_numpy().argmax())
    marks.name_rows(ax, [str(label) for label in medians.index], best=best)
    ax.set_xlim(left=0)
    ax.set_xlabel("requests per minute")
    counts = rows["label"].value_counts()
    notes = [
        f"{format_number(median)} / min\n(n = {counts[str(label)]})"
        for label, median in medians.items()
    ]
    marks.note_column(ax, enumerate(notes))
    ranked = medians.sort_values(ascending=False)
    title = f"{ranked.index[0]} serves most: {format_number(ranked.iloc[0])} requests per minute"
    if len(ranked) > 1:
        title += f", {ranked.index[-1]} least: {format_number(ranked.iloc[-1])}"
    words = caption(
        rows,
        cases,
        n=wording.counted(len(rows), "case"),
        interval="no interval: every case is a dot, their median a bar",
    )
    return style.finish(figure, title, words)
