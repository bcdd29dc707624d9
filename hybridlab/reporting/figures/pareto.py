"""Figure of what an arm costs: latency, as a multiple of the control's, with its peak memory."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.standings import PAIR_COLUMNS, Standing, standings
from hybridlab.reporting.figures import marks, order, style, wording
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.palette import CAPACITY_COLOUR, strategy_look
from hybridlab.units import format_bytes


@style.styled(
    cases=("case_id", "experiment", "strategy", "variant", "status", *PAIR_COLUMNS),
    trials=("case_id", "request_id", "strategy", "variant", "latency_s", "first", "parity"),
)
def pareto(cases: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Every arm of the races; the filled ones are not beaten in both by another."""
    found = standings(cases, trials) if len(cases) and len(trials) else []
    arms = [a for a in found if not math.isnan(a.relative.value) and not math.isnan(a.peak_bytes)]
    if not arms:
        return style.nothing_to_show("No race case can be compared, so there is no trade.")
    race = cases[cases["experiment"] == "race"]
    place = order.strategies_first(list((race["strategy"] + " " + race["variant"]).unique()))
    arms.sort(key=lambda arm: place.index(_name(arm)))
    front = pareto_front(arms)
    figure, ax = style.new_axes(style.rows_height(len(arms), each_in=0.46))
    for y, arm in enumerate(arms):
        best = arm in front
        marker, colour = strategy_look(arm.strategy)
        face = colour if best else "white"
        ax.plot(arm.relative.value, y, marker, mfc=face, mec=colour, markersize=10, zorder=4)
        if not math.isnan(arm.relative.low):
            ax.hlines(y, arm.relative.low, arm.relative.high, color=colour, linewidth=2.4)
        words = f"{arm.relative.value:.2f} x · peak {format_bytes(arm.peak_bytes)}"
        marks.note_column(ax, [(y, words)])
    marks.name_rows(ax, [_name(arm) for arm in arms], best=arms.index(front[0]))
    ax.axvline(1.0, color=CAPACITY_COLOUR, linestyle="--", linewidth=1.2)
    ax.set_xlim(left=0)
    ax.set_xlabel("latency over that of sequential plain in the same notebook")
    requests = wording.counted(sum(arm.n for arm in arms), "request")
    words = caption(
        race,
        cases,
        n=f"{requests} in {wording.counted(len(arms), 'arm')}",
        interval=f"bar: {BOOTSTRAP} of the median",
        notes=("filled: no other arm is both faster and smaller", "peak: the highest of any case"),
    )
    return style.finish(figure, _finding(front, len(arms)), words)


def _name(arm: Standing) -> str:
    return f"{arm.strategy} {arm.variant}"


def pareto_front(arms: list[Standing]) -> list[Standing]:
    """The arms that no other beats in latency without a higher peak, fastest first."""
    front: list[Standing] = []
    for arm in sorted(arms, key=lambda arm: (arm.relative.value, arm.peak_bytes)):
        if not front or arm.peak_bytes < front[-1].peak_bytes:
            front.append(arm)
    return front


def _finding(front: list[Standing], count: int) -> str:
    fastest, smallest = front[0], front[-1]
    if len(front) == 1:
        return f"{_name(fastest)} is both the fastest and the smallest of {count} arms"
    saved = fastest.peak_bytes - smallest.peak_bytes
    slower = smallest.relative.value / fastest.relative.value
    return (
        f"{len(front)} of {count} arms are worth a thought: {_name(smallest)} saves "
        f"{format_bytes(saved)} against {_name(fastest)} and takes {slower:.2f} times as long"
    )
