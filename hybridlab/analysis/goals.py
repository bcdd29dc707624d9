"""What each of several goals picks among the arms of a race, and what an arm takes in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.analysis.arms import ArmStats, Figure
from hybridlab.analysis.differences import how_sure
from hybridlab.analysis.stats import Interval
from hybridlab.units import (
    counted,
    format_bytes,
    format_number,
    format_percent,
    format_seconds,
    format_seconds_alike,
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The best arm for one goal, those that cannot be told from it, and the one behind it."""

    goal: str
    arm: str
    figure: str
    how_sure: str
    runner_up: str
    runner_up_figure: str


def doubts(arm: ArmStats) -> tuple[bool, bool]:
    """Why an arm comes behind all others: texts that nobody checked, too few rounds."""
    return arm.unchecked > 0, arm.few


def goals_of(arms: list[ArmStats]) -> tuple[Objective, ...]:
    """Each goal's best and second arm, and whether the best can be told from the others. A goal
    without figures is not there."""
    wanted: tuple[tuple[str, Figure, Callable[[ArmStats], float], Callable[[ArmStats], str]], ...]
    wanted = (
        ("lowest latency", "latency", lambda arm: arm.relative.value, _latency_figure),
        ("highest throughput", "throughput", lambda arm: -arm.rate.value, _rate_text),
        ("safest margin", "margin_bytes", lambda arm: -arm.margin_bytes, _margin_text),
        ("best quality", "wer", lambda arm: arm.wer, _wer_text),
    )
    found = []
    for goal, figure, cost, text in wanted:
        known = [arm for arm in arms if not math.isnan(cost(arm))]
        if known:
            known.sort(key=lambda arm: (doubts(arm), cost(arm), known_or(arm.relative.value, 0.0)))
            best, second = known[0], known[1] if len(known) > 1 else None
            found.append(
                Objective(
                    goal=goal,
                    arm=best.arm,
                    figure=text(best),
                    how_sure=how_sure(best, known, figure),
                    runner_up=second.arm if second else "",
                    runner_up_figure=text(second) if second else "",
                )
            )
    return tuple(found)


def _latency_figure(arm: ArmStats) -> str:
    return seconds_text(arm.latency_s)


def _rate_text(arm: ArmStats) -> str:
    return f"{format_number(arm.throughput_rps)} requests/s, {arm.rate.value:.2f} x its control"


def _margin_text(arm: ArmStats) -> str:
    return f"{format_bytes(arm.margin_bytes)} to spare"


def _wer_text(arm: ArmStats) -> str:
    left_out = " of the texts that were not cut short" if arm.cut else ""
    return f"word error rate {format_percent(arm.wer, 1)}{left_out}"


def known_or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def latency_text(arm: ArmStats) -> str:
    return (
        f"median {seconds_text(arm.latency_s)}, {_ratio(arm.relative)} the control in the same "
        f"rounds, n = {counted(arm.n, 'case')}"
    )


def seconds_text(values: Interval) -> str:
    if math.isnan(values.low):
        return format_seconds(values.value)
    value, low, high = format_seconds_alike([values.value, values.low, values.high])
    return f"{value} (95 % interval {low} to {high})"


def _ratio(values: Interval) -> str:
    if math.isnan(values.low):
        return f"{values.value:.2f} x"
    return f"{values.value:.2f} x ({values.low:.2f} to {values.high:.2f})"
