"""Which strategy to pick on this device: the winner of the races, its runner-up, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import (
    LEAST_TRIALS,
    PAIR_COLUMNS,
    ArmStats,
    race_cases,
    standings,
)
from hybridlab.analysis.stats import Interval
from hybridlab.simulation import NO_TIMES
from hybridlab.units import format_bytes, format_number, format_seconds

#: So often the trials are drawn again to see whether the choice stays.
RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an arm must keep to be recommended; the defaults ask for nothing. An arm whose figure is
    unknown does not keep it."""

    min_margin_bytes: int = 0
    max_p95_s: float = math.inf
    max_wer: float = math.inf

    @classmethod
    def asked(
        cls, *, min_margin_bytes: float = 0, max_p95_s: float = 0, max_wer: float = 1
    ) -> Requirements:
        """From what a reader may ask for: 0 seconds and a word error rate of 1 ask for nothing."""
        return cls(
            min_margin_bytes=int(min_margin_bytes),
            max_p95_s=max_p95_s or math.inf,
            max_wer=max_wer if max_wer < 1 else math.inf,
        )

    def broken_by(self, arm: ArmStats) -> list[str]:
        """What this arm does not keep, in words; empty where it keeps all."""
        found = []
        if self.min_margin_bytes and not arm.margin_bytes >= self.min_margin_bytes:
            found.append(f"margin below {format_bytes(self.min_margin_bytes)}")
        if not math.isinf(self.max_p95_s) and not arm.p95_s <= self.max_p95_s:
            found.append(f"p95 above {format_seconds(self.max_p95_s)}")
        if not math.isinf(self.max_wer) and not arm.wer <= self.max_wer:
            found.append(f"word error rate above {self.max_wer:.1%}")
        return found


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The best arm for one goal, and the one behind it."""

    goal: str
    arm: str
    figure: str
    runner_up: str
    runner_up_figure: str


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The strategy to pick for the pair that was raced; seconds and bytes inside. On a simulated
    card, which has no clock, it is picked by its bytes alone and all times are not-a-number."""

    pair: str
    strategy: str
    variant: str
    why: str
    runner_up: str
    why_not: str
    tie: bool
    n: int
    median_s: float
    low_s: float
    high_s: float
    relative: float
    throughput_rps: float
    peak_bytes: float
    margin_bytes: float
    goals: tuple[Objective, ...]
    #: Share of resamples of the trials in which another arm has the lowest median.
    selection_instability: float

    @property
    def by_bytes(self) -> bool:
        """Whether bytes alone decided."""
        return math.isnan(self.median_s)

    @property
    def flip_words(self) -> str:
        """How firm the choice is, in a sentence."""
        if self.by_bytes:
            return f"Bytes alone decide: {NO_TIMES}."
        return (
            f"When the trials are drawn again, another way has the lowest median in "
            f"{self.selection_instability:.0%} of {RESAMPLES} draws."
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def recommend(
    cases: pd.DataFrame, trials: pd.DataFrame, constraints: Requirements | None = None
) -> Recommendation | None:
    """The arm to pick of those that keep the constraints; None where none can be compared."""
    asked = constraints or Requirements()
    arms = [arm for arm in standings(cases, trials) if not asked.broken_by(arm)]
    return select(arms, pair=pair_of(cases, trials)) if arms else None


def select(arms: list[ArmStats], *, pair: str) -> Recommendation | None:
    """The arm with the lowest median latency.

    Latencies count as multiples of the control arm (sequential/plain) of their own notebook, since
    the notebooks are not interleaved with each other; seconds are shown beside them. Arms whose
    95 % intervals overlap the fastest one's are a tie, which goes to the smaller peak. First
    requests, failed cases and cases whose texts differ from each model's alone are in no standing.
    Without any latency, as on a simulated card, the smallest peak is picked. None where no arm has
    a control to be held against.
    """
    if all(math.isnan(arm.latency_s.value) for arm in arms):
        return _least_bytes(arms, pair=pair)
    arms = [arm for arm in arms if not math.isnan(arm.relative.value)]
    if not arms:
        return None
    arms.sort(key=lambda arm: (arm.relative.value, arm.arm))
    tied = [arm for arm in arms if _ties(arms[0], arm)]
    best = min(tied, key=lambda arm: (_or(arm.peak_bytes, math.inf), arm.relative.value))
    rest = [arm for arm in tied if arm is not best] + [arm for arm in arms if arm not in tied]
    tie = len(tied) > 1
    return _recommendation(
        [best, *rest],
        pair=pair,
        why=_why(best, tie=tie),
        why_not=_why_not(rest[0], best, tie=rest[0] in tied) if rest else "",
        tie=tie,
        instability=_selection_instability(best, arms),
    )


def _least_bytes(arms: list[ArmStats], *, pair: str) -> Recommendation | None:
    """The arm with the smallest peak of those with one; of equal ones the first by name."""
    known = [arm for arm in arms if not math.isnan(arm.peak_bytes)]
    if not known:
        return None
    known.sort(key=lambda arm: (arm.peak_bytes, arm.arm))
    best, *rest = known
    more = rest[0].peak_bytes - best.peak_bytes if rest else 0
    return _recommendation(
        known,
        pair=pair,
        why=f"smallest peak: {_peak_and_margin(best)}; {NO_TIMES}, so bytes alone decide",
        why_not=f"its peak is {format_bytes(more)} higher" if rest else "",
        tie=bool(rest) and not more,
        instability=math.nan,
    )


def _recommendation(
    ranked: list[ArmStats], *, pair: str, why: str, why_not: str, tie: bool, instability: float
) -> Recommendation:
    """For the first of these arms, with the second behind it."""
    best, *rest = ranked
    return Recommendation(
        pair=pair,
        strategy=best.strategy,
        variant=best.variant,
        why=why,
        runner_up=rest[0].arm if rest else "",
        why_not=why_not,
        tie=tie,
        n=best.n,
        median_s=best.latency_s.value,
        low_s=best.latency_s.low,
        high_s=best.latency_s.high,
        relative=best.relative.value,
        throughput_rps=best.throughput_rps,
        peak_bytes=best.peak_bytes,
        margin_bytes=best.margin_bytes,
        goals=_goals(ranked),
        selection_instability=instability,
    )


def _goals(arms: list[ArmStats]) -> tuple[Objective, ...]:
    """Each goal's best and second arm; of equal ones the faster. A goal without figures is not
    there."""
    wanted: tuple[tuple[str, Callable[[ArmStats], float], Callable[[ArmStats], str]], ...] = (
        ("lowest latency", lambda arm: arm.relative.value, lambda arm: _seconds(arm.latency_s)),
        ("highest throughput", lambda arm: -arm.rate.value, _rate_text),
        (
            "safest margin",
            lambda arm: -arm.margin_bytes,
            lambda arm: f"{format_bytes(arm.margin_bytes)} to spare",
        ),
        ("best quality", lambda arm: arm.wer, lambda arm: f"word error rate {arm.wer:.1%}"),
    )
    found = []
    for goal, cost, text in wanted:
        known = [arm for arm in arms if not math.isnan(cost(arm))]
        if known:
            known.sort(key=lambda arm: (cost(arm), _or(arm.relative.value, 0.0)))
            best, second = known[0], known[1] if len(known) > 1 else None
            found.append(
                Objective(
                    goal=goal,
                    arm=best.arm,
                    figure=text(best),
                    runner_up=second.arm if second else "",
                    runner_up_figure=text(second) if second else "",
                )
            )
    return tuple(found)


def _rate_text(arm: ArmStats) -> str:
    return f"{format_number(arm.throughput_rps)} requests/s, {arm.rate.value:.2f} x its control"


def _selection_instability(best: ArmStats, arms: list[ArmStats]) -> float:
    """How often another arm wins when every arm's trials are drawn again, with replacement."""
    rng = np.random.default_rng(0)
    medians = np.array(
        [
            np.median(rng.choice(arm.relatives, (RESAMPLES, len(arm.relatives))), axis=1)
            for arm in arms
        ]
    )
    return float((medians.argmin(axis=0) != arms.index(best)).mean())


def _ties(fastest: ArmStats, arm: ArmStats) -> bool:
    """Whether this arm cannot be told from the fastest; one value alone has no interval and so
    can never be told apart."""
    unknown = math.isnan(fastest.relative.low) or math.isnan(arm.relative.low)
    return arm is fastest or unknown or fastest.relative.overlaps(arm.relative)


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def pair_of(cases: pd.DataFrame, trials: pd.DataFrame) -> str:
    """The raced pair: 'Voxtral mini-3b (random weights, float16) + Whisper medium (...)'."""
    raced = race_cases(cases, trials)
    paired = raced[raced["asr_model"].notna()]
    row = (paired if len(paired) else raced).iloc[0]
    voxtral, source, dtype, size, backend, whisper_source, asr_dtype = (
        row[name] for name in PAIR_COLUMNS
    )
    first = f"Voxtral {voxtral} ({source} weights, {dtype})"
    if paired.empty:
        return first
    return f"{first} + Whisper {size} ({backend}, {whisper_source} weights, {asr_dtype})"


def _latency_text(arm: ArmStats) -> str:
    return (
        f"median {_seconds(arm.latency_s)}, {_ratio(arm.relative)} the control of its notebook, "
        f"n = {arm.n}"
    )


def _seconds(values: Interval) -> str:
    if math.isnan(values.low):
        return format_seconds(values.value)
    low, high = format_seconds(values.low), format_seconds(values.high)
    return f"{format_seconds(values.value)} (95 % interval {low} to {high})"


def _ratio(values: Interval) -> str:
    if math.isnan(values.low):
        return f"{values.value:.2f} x"
    return f"{values.value:.2f} x ({values.low:.2f} to {values.high:.2f})"


def _why(arm: ArmStats, *, tie: bool) -> str:
    lead = "tied for the lowest latency, with the smallest peak" if tie else "lowest latency"
    few = f"; fewer than {LEAST_TRIALS} trials, so take it as a hint"
    memory = "" if math.isnan(arm.peak_bytes) else f"; peak {_peak_and_margin(arm)}"
    return f"{lead}: {_latency_text(arm)}{memory}{few if arm.n < LEAST_TRIALS else ''}"


def _peak_and_margin(arm: ArmStats) -> str:
    margin = "" if math.isnan(arm.margin_bytes) else f", margin {format_bytes(arm.margin_bytes)}"
    return f"{format_bytes(arm.peak_bytes)}{margin}"


def _why_not(arm: ArmStats, best: ArmStats, *, tie: bool) -> str:
    if not tie:
        return f"slower: {_latency_text(arm)}"
    more = arm.peak_bytes - best.peak_bytes
    memory = "" if math.isnan(more) else f"; its peak is {format_bytes(more)} higher"
    return f"a tie in latency: {_latency_text(arm)}{memory}"
