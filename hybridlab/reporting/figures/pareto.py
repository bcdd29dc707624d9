"""Figure of what an arm costs: latency, as a multiple of the control's, with its peak memory."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.arms import PAIR_COLUMNS, ArmStats, standings
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.ordering import strategies_first
from hybridlab.reporting.palette import CAPACITY_COLOUR, strategy_look
from hybridlab.reporting.rows import cases_of
from hybridlab.units import format_bytes


@theme.styled(
    cases=("case_id", "experiment", "strategy", "variant", "status", *PAIR_COLUMNS),
    trials=(
        "case_id",
        "request_id",
        "strategy",
        "variant",
        "latency_s",
        "is_first_request",
        "output_matches_reference",
    ),
)
def pareto(cases: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Every arm of the races; the filled ones are not beaten in both by another."""
    found = standings(cases, trials) if len(cases) and len(trials) else []
    arms = [a for a in found if not math.isnan(a.relative.value) and not math.isnan(a.peak_bytes)]
    if not arms:
        return theme.nothing_to_show("No race case can be compared, so there is no trade.")
    race = cases_of(cases, "strategy_comparison")
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
    requests = labels.counted(sum(arm.n for arm in arms), "request")
    words = caption(
        race,
        cases,
        n=f"{requests} in {labels.counted(len(arms), 'arm')}",
        interval=f"bar: {BOOTSTRAP} of the median",
        notes=("filled: no other arm is both faster and smaller", "peak: the highest of any case"),
    )
    return theme.finish(figure, _finding(front, len(arms)), words)


def pareto_front(arms: list[ArmStats]) -> list[ArmStats]:
    """The arms that no other beats in latency without a higher peak, fastest first."""
    front: list[ArmStats] = []
    for arm in sorted(arms, key=lambda arm: (arm.relative.value, arm.peak_bytes)):
        if not front or arm.peak_bytes < front[-1].peak_bytes:
            front.append(arm)
    return front


def _finding(front: list[ArmStats], count: int) -> str:
    fastest, smallest = front[0], front[-1]
    if len(front) == 1:
        return f"{fastest.arm} is both the fastest and the smallest of {count} arms"
    saved = fastest.peak_bytes - smallest.peak_bytes
    slower = smallest.relative.value / fastest.relative.value
    return (
        f"{len(front)} of {count} arms are not beaten in both: {smallest.arm} saves "
        f"{format_bytes(saved)} against {fastest.arm} and takes {slower:.2f} times as long"
    )
