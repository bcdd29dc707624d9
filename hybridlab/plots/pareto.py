"""Figure of what an arm costs: latency, as a multiple of the control's, with its peak memory."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.standings import Standing, standings
from hybridlab.units import format_bytes


@style.styled
def pareto(cases: pd.DataFrame, trials: pd.DataFrame) -> Figure:
    """Every arm of the races; the filled ones are not beaten in both by another."""
    found = standings(cases, trials) if len(cases) and len(trials) else []
    arms = [a for a in found if not math.isnan(a.relative.value) and not math.isnan(a.peak_bytes)]
    if not arms:
        return style.nothing_to_show("No race case can be compared, so there is no trade.")
    arms.sort(key=lambda arm: (arm.relative.value, arm.name))
    front = pareto_front(arms)
    figure, ax = style.new_axes(style.rows_height(len(arms), each_in=0.46))
    for y, arm in enumerate(arms):
        best = arm in front
        colour = style.STRATEGY_COLOURS.get(arm.strategy, style.MUTED)
        marker = style.STRATEGY_MARKERS.get(arm.strategy, "o")
        face = colour if best else "none"
        ax.plot(arm.relative.value, y, marker, mfc=face, mec=colour, markersize=10, zorder=4)
        if not math.isnan(arm.relative.low):
            ax.hlines(y, arm.relative.low, arm.relative.high, color=colour, linewidth=2.2)
        words = f"{arm.relative.value:.2f} x · peak {format_bytes(arm.peak_bytes)}"
        style.note_column(ax, [(y, words)])
    ax.set_yticks(range(len(arms)), [arm.name for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.axvline(1.0, color=style.CAPACITY_COLOUR, linestyle="--", linewidth=1.2)
    ax.set_xlim(left=0)
    ax.set_xlabel("latency over that of sequential (plain) in the same notebook")
    caption = wording.caption_of(
        None,
        f"n = {sum(arm.n for arm in arms)} requests in {len(arms)} arms, bar: bootstrap 95 % "
        "interval",
        "filled: no other arm is both faster and smaller",
        wording.device_words(cases[cases["experiment"] == "race"]),
    )
    return style.finish(figure, _finding(front, len(arms)), caption)


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
        return f"{fastest.name} is both the fastest and the smallest of {count} arms"
    saved = fastest.peak_bytes - smallest.peak_bytes
    slower = smallest.relative.value / fastest.relative.value
    return (
        f"{len(front)} of {count} arms are worth a thought: {smallest.name} saves "
        f"{format_bytes(saved)} against {fastest.name} and takes {slower:.2f} times as long"
    )
