"""Figure of an open loop: what is served (1/s) and how late (s) against the rate of requests."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from hybridlab.analysis.queueing import KNEE_RATIO, arrival_points, knees
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import load_finding
from hybridlab.reporting.palette import DASHES, GUIDE, strategy_look
from hybridlab.reporting.rows import strategies_first
from hybridlab.units import format_number

#: Of the markers of one strategy's variants.
FILLS: tuple[Any, ...] = ("full", "none", "left", "top", "right")


@theme.styled(timed=True)
def load_sweep(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Throughput and p95 latency of each arm at each offered rate; a ring marks the last rate
    before the knee."""
    points = arrival_points(trials[trials["latency_s"].notna()], cases)
    points = points[points["rate_rps"].notna()] if len(points) else points
    if points.empty:
        return theme.nothing_to_show("No requests came at their own times, so there is no knee.")
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
        words = _knee_words(held[arm], ranked["rate_rps"].to_list())
        served.plot(ranked["rate_rps"], ranked["served_rps"], label=f"{arm} ({words})", **look)
        late.plot(ranked["rate_rps"], ranked["p95_s"], **look)
        _rings(served, late, ranked[ranked["rate_rps"] == held[arm]], colour)
    _axes(served, late, points)
    elements.legend_below(served, columns=2)
    requests = labels.counted(int(points["n"].sum()), "request")
    return theme.captioned(
        figure,
        load_finding(points),
        trials[trials["experiment"] == "load_sweep"],
        cases,
        n=f"{requests}, {int(points['n'].min())} or more for each point",
        interval="no interval: each point is the p95 of one case",
        notes=(
            f"ring: last rate with p95 within {KNEE_RATIO:g} times that at the lowest",
            "dashed: all that is offered on the long average; a few arrivals may come slower",
        ),
    )


def _rings(served: Axes, late: Axes, knee: pd.DataFrame, colour: str) -> None:
    for ax, quantity in ((served, "served_rps"), (late, "p95_s")):
        ax.plot(knee["rate_rps"], knee[quantity], "o", mfc="none", mec=colour, markersize=15)


def _axes(served: Axes, late: Axes, points: pd.DataFrame) -> None:
    highest = float(points["rate_rps"].max()) * 1.06
    served.plot([0, highest], [0, highest], color=GUIDE, linestyle="--", linewidth=1.2)
    most = max(highest, float(points["served_rps"].max()) * 1.06)
    served.set(xlim=(0, highest), ylim=(0, most), ylabel="served (requests / s)")
    late.set(yscale="log", ylabel="p95 latency with waiting (s), logarithmic")
    late.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    narrow = points["p95_s"].max() < 10 * points["p95_s"].min()
    late.yaxis.set_minor_formatter((lambda v, _: f"{v:g}") if narrow else NullFormatter())
    for ax in (served, late):
        ax.set_xlabel("offered (requests / s, Poisson)")


def _knee_words(knee: float, rates: list[float]) -> str:
    if len(rates) == 1:
        return f"{format_number(knee)} / s alone"
    found = "no knee up to" if knee == rates[-1] else "knee at"
    return f"{found} {format_number(knee)} / s"
