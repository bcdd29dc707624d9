"""Figure of an open loop: what is served (1/s) and how late (s) against the rate of requests."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from hybridlab.analysis.queueing import KNEE_RATIO, arrival_points, knees
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import load_finding
from hybridlab.reporting.palette import DASHES, GUIDE, strategy_look
from hybridlab.reporting.rows import strategies_first
from hybridlab.units import counted, format_number

#: Of the markers of one strategy's variants.
FILLS: tuple[Any, ...] = ("full", "none", "left", "top", "right")


@theme.styled(timed=True)
def load_sweep(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Throughput and p95 latency of each arm at each rate at which requests came, a ring at the
    last rate before the knee; with too few requests for a p95 the median wait."""
    points = arrival_points(trials[trials["latency_s"].notna()], cases)
    if points.empty:
        return theme.nothing_to_show("No requests came at their own times, so there is no knee.")
    late_by = "queue_time_s" if points["p95_s"].isna().any() else "p95_s"
    held = knees(points)
    figure = theme.new_figure(4.6)
    served, late = figure.subplots(1, 2, sharex=True)
    seen: list[str] = []
    for arm in strategies_first(list(held)):
        ranked = points[points["arm"] == arm].sort_values("rate_rps")
        strategy = str(ranked["strategy"].iloc[0])
        colour, marker = strategy_look(strategy)
        place = seen.count(strategy) % len(DASHES)
        seen.append(strategy)
        look: dict[str, Any] = {"marker": marker, "lw": 2, "ms": 7, "color": colour}
        # a single point has no dash
        look |= {"ls": DASHES[place], "fillstyle": FILLS[place]}
        words = f" ({_knee_words(held[arm], ranked)})" if late_by == "p95_s" else ""
        served.plot(ranked["rate_rps"], ranked["served_rps"], label=f"{arm}{words}", **look)
        late.plot(ranked["rate_rps"], ranked[late_by], **look)
        knee = ranked[ranked["rate_rps"] == held[arm]]
        for ax, quantity in ((served, "served_rps"), (late, late_by)):
            ax.plot(knee["rate_rps"], knee[quantity], "o", mfc="none", mec=colour, markersize=15)
    _axes(served, late, points, late_by)
    elements.legend_below(served, columns=2)
    requests = counted(int(points["n"].sum()), "request")
    return theme.captioned(
        figure,
        load_finding(points),
        trials[trials["experiment"] == "load_sweep"],
        cases,
        n=f"{requests}, {int(points['n'].min())} or more for each point",
        interval="no interval: each point is one case",
        notes=("dashed: all that comes is served", *NOTES[late_by]),
    )


NOTES = {
    "p95_s": (
        f"ring: last rate with p95 within {KNEE_RATIO:g} times that at the lowest, below what the "
        "arm serves at most",
    ),
    "queue_time_s": ("a p95 and a knee need 100 requests at each rate (arrival_requests)",),
}
LATE = {
    "p95_s": "p95 latency with waiting (s),\nlogarithmic",
    "queue_time_s": "median wait until\na request is begun (s)",
}


def _axes(served: Axes, late: Axes, points: pd.DataFrame, late_by: str) -> None:
    highest = float(points["rate_rps"].max()) * 1.06
    served.plot([0, highest], [0, highest], color=GUIDE, linestyle="--", linewidth=1.2)
    most = max(highest, float(points["served_rps"].max()) * 1.06)
    served.set(xlim=(0, highest), ylim=(0, most), ylabel="served (requests / s)")
    late.set(ylabel=LATE[late_by])
    if late_by == "p95_s":
        late.set(yscale="log")
        late.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        narrow = points["p95_s"].max() < 10 * points["p95_s"].min()
        late.yaxis.set_minor_formatter((lambda v, _: f"{v:g}") if narrow else NullFormatter())
    for ax in (served, late):
        ax.set_xlabel("came (requests / s, Poisson)")


def _knee_words(knee: float, ranked: pd.DataFrame) -> str:
    rates = ranked["rate_rps"].to_list()
    if not math.isfinite(knee):
        return "holds none of these"
    if len(rates) == 1:
        return f"{format_number(knee)} / s alone"
    found = "no knee up to" if knee == rates[-1] else "knee at"
    return f"{found} {format_number(knee)} / s"
