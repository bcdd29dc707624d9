"""Which strategy to pick on this device: the winner of the races, its runner-up, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hybridlab import catalog
from hybridlab.analysis.arms import (
    LEAST_ROUNDS,
    PAIR_COLUMNS,
    ArmStats,
    Figure,
    failures,
    race,
    standings,
)
from hybridlab.analysis.differences import ties
from hybridlab.analysis.goals import Objective, doubts, goals_of, known_or, latency_text
from hybridlab.simulation import NO_TIMES
from hybridlab.units import format_bytes, format_percent, format_seconds

#: So often the rounds are drawn again to see whether the choice stays.
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
            unknown = math.isnan(arm.p95_s)
            above = f"p95 above {format_seconds(self.max_p95_s)}"
            found.append("too few requests for a p95" if unknown else above)
        if not math.isinf(self.max_wer) and not arm.wer <= self.max_wer:
            words = f"word error rate above {format_percent(self.max_wer, 1)}"
            if math.isnan(arm.wer):
                words = f"no word error rate{': its texts were cut short' if arm.cut else ''}"
            found.append(words)
        return found


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The way of sharing to pick for the pair that was raced; seconds and bytes inside. On a
    simulated card, which has no clock, it is picked by its bytes alone and all times are
    not-a-number. `alone` is what Voxtral takes without a Whisper, in words."""

    pair: str
    strategy: str
    variant: str
    #: What stands before all else of it: rounds lost, texts cut short or unchecked; '' where
    #: nothing does.
    caveats: str
    why: str
    runner_up: str
    why_not: str
    tie: bool
    #: Of cases.
    n: int
    few: bool
    median_s: float
    low_s: float
    high_s: float
    relative: float
    throughput_rps: float
    peak_bytes: float
    margin_bytes: float
    alone: str
    barred: tuple[str, ...]
    goals: tuple[Objective, ...]
    #: Share of resamples of the rounds in which another arm has the lowest latency; not-a-number
    #: with too few of them.
    selection_instability: float

    @property
    def by_bytes(self) -> bool:
        """Whether bytes alone decided."""
        return math.isnan(self.median_s)

    @property
    def notes(self) -> list[str]:
        """How firm the choice is, what it is held against and what was barred, in sentences."""
        firm = f"Bytes alone decide: {NO_TIMES}."
        if not self.by_bytes:
            firm = (
                f"When the rounds are drawn again, another way has the lowest latency in "
                f"{format_percent(self.selection_instability)} of {RESAMPLES} draws."
            )
            if math.isnan(self.selection_instability):
                firm = f"How firm the choice is takes {LEAST_ROUNDS} rounds to tell."
        alone = [f"Without a Whisper: {self.alone}."] if self.alone else []
        return [firm, *alone, *(f"Barred: {words}." for words in self.barred)]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "notes": self.notes}


def recommend(
    cases: pd.DataFrame, trials: pd.DataFrame, constraints: Requirements | None = None
) -> Recommendation | None:
    """The arm to pick of those that keep the constraints; None where none can be compared."""
    found = select(standings(cases, trials), pair=pair_of(cases), asked=constraints)
    if found is None:
        return None
    barred = tuple(f"{arm}, {why}" for arm, why in failures(cases, trials).items())
    return replace(found, barred=barred)


def select(
    arms: list[ArmStats], *, pair: str, asked: Requirements | None = None
) -> Recommendation | None:
    """The arm with a Whisper that has the lowest latency.

    Latencies count as multiples of the control arm (sequential/plain) in the same round of the same
    notebook; seconds are shown beside them. Arms that cannot be told from the fastest are a tie,
    which goes to the smaller peak. An arm that failed in any round is not picked; one whose texts
    were not all checked, or that has too few rounds, only where there is no other. Without any
    latency, as on a simulated card, the smallest peak is picked. None where no arm is left.
    """
    asked = asked or Requirements()
    kept = [arm for arm in arms if _has_asr(arm) and not arm.failed and not asked.broken_by(arm)]
    by_bytes = all(math.isnan(arm.latency_s.value) for arm in kept)
    figure: Figure = "peak_bytes" if by_bytes else "latency"
    kept = [arm for arm in kept if not math.isnan(_cost(arm, figure))]
    if not kept:
        return None
    kept.sort(key=lambda arm: (doubts(arm), _cost(arm, figure), arm.arm))
    first, peers = kept[0], [arm for arm in kept if doubts(arm) == doubts(kept[0])]
    tied = [] if first.few else ties(first, peers, figure)
    best = min(
        [first, *tied], key=lambda arm: (known_or(arm.peak_bytes, math.inf), _cost(arm, figure))
    )
    rest = [arm for arm in kept if arm is not best]
    rest.sort(key=lambda arm: arm is not first and arm not in tied)
    return _recommendation(
        [best, *rest],
        figure,
        pair=pair,
        why=_why(best, figure, tie=bool(tied)),
        why_not=_why_not(rest[0], best, figure, tied=[first, *tied]) if rest else "",
        tie=bool(tied),
        alone=_alone([arm for arm in arms if not _has_asr(arm)]),
        instability=_selection_instability(peers) if figure == "latency" else math.nan,
    )


def _has_asr(arm: ArmStats) -> bool:
    return catalog.strategy(arm.strategy).has_asr


def _cost(arm: ArmStats, figure: Figure) -> float:
    return arm.peak_bytes if figure == "peak_bytes" else arm.relative.value


def _alone(arms: list[ArmStats]) -> str:
    """What the control of the whole question takes, Voxtral without a Whisper; '' unmeasured."""
    if not arms:
        return ""
    best = min(arms, key=lambda arm: (known_or(arm.relative.value, math.inf), arm.peak_bytes))
    peak = "" if math.isnan(best.peak_bytes) else f"; peak {_peak_and_margin(best)}"
    if math.isnan(best.latency_s.value):
        return f"{best.arm}{peak}"
    return f"{best.arm}, {latency_text(best)}{peak}"


def _recommendation(
    ranked: list[ArmStats],
    figure: Figure,
    *,
    pair: str,
    why: str,
    why_not: str,
    tie: bool,
    alone: str,
    instability: float,
) -> Recommendation:
    """For the first of these arms, with the second behind it."""
    best, *rest = ranked
    return Recommendation(
        pair=pair,
        strategy=best.strategy,
        variant=best.variant,
        caveats=best.caveats,
        why=why,
        runner_up=rest[0].arm if rest else "",
        why_not=why_not,
        tie=tie,
        n=best.n,
        few=best.few,
        median_s=best.latency_s.value,
        low_s=best.latency_s.low,
        high_s=best.latency_s.high,
        relative=best.relative.value,
        throughput_rps=best.throughput_rps,
        peak_bytes=best.peak_bytes,
        margin_bytes=best.margin_bytes,
        alone=alone,
        barred=(),
        goals=goals_of(ranked),
        selection_instability=instability,
    )


def _selection_instability(arms: list[ArmStats]) -> float:
    """How often another arm than the fastest of these is, when the rounds are drawn again with
    replacement, the same ones for all arms; not-a-number with too few rounds."""
    if arms[0].few:
        return math.nan
    rounds = list({number: None for arm in arms for _, number in arm.readings["latency"]})
    table = np.full((len(arms), len(rounds)), math.nan)
    for row, arm in enumerate(arms):
        for (_, number), value in arm.readings["latency"].items():
            table[row, rounds.index(number)] = value
    drawn = np.random.default_rng(0).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    known = ~np.isnan(table[:, drawn])
    totals = np.where(known, table[:, drawn], 0.0).sum(axis=2)
    means = np.where(known.any(axis=2), totals / np.maximum(known.sum(axis=2), 1), math.inf)
    return float((means.argmin(axis=0) != 0).mean())


def pair_of(cases: pd.DataFrame) -> str:
    """The raced pair: 'Voxtral mini-3b (random weights, float16) + Whisper medium (...)'; '' where
    none raced."""
    raced = race(cases)
    paired = raced[raced["asr_model"].notna()]
    if raced.empty:
        return ""
    row = (paired if len(paired) else raced).iloc[0]
    voxtral, source, dtype, size, backend, whisper_source, asr_dtype = (
        row[name] for name in PAIR_COLUMNS
    )
    first = f"Voxtral {voxtral} ({source} weights, {dtype})"
    if paired.empty:
        return first
    return f"{first} + Whisper {size} ({backend}, {whisper_source} weights, {asr_dtype})"


def _why(arm: ArmStats, figure: Figure, *, tie: bool) -> str:
    caveats = f"{arm.caveats}; " if arm.caveats else ""
    what = "smallest peak" if figure == "peak_bytes" else "lowest latency"
    lead = f"tied for the {what}, with the smallest peak" if tie else what
    if arm.few:
        lead = f"{what} so far, in fewer than the {LEAST_ROUNDS} rounds that it takes to tell"
    if figure == "peak_bytes":
        said = f"{lead}: {_peak_and_margin(arm)}; {NO_TIMES}, so bytes alone decide"
    else:
        memory = "" if math.isnan(arm.peak_bytes) else f"; peak {_peak_and_margin(arm)}"
        said = f"{lead}: {latency_text(arm)}{memory}"
    return f"{caveats}{said}"


def _peak_and_margin(arm: ArmStats) -> str:
    margin = "" if math.isnan(arm.margin_bytes) else f", margin {format_bytes(arm.margin_bytes)}"
    return f"{format_bytes(arm.peak_bytes)}{margin}"


def _why_not(arm: ArmStats, best: ArmStats, figure: Figure, *, tied: list[ArmStats]) -> str:
    """What speaks against the runner-up."""
    caveats = f"{arm.caveats}; " if arm.caveats else ""
    more = arm.peak_bytes - best.peak_bytes
    memory = "" if math.isnan(more) else f"its peak is {format_bytes(more)} higher"
    if more < 0:
        memory = f"its peak is {format_bytes(-more)} lower"
    if figure == "peak_bytes":
        return f"{caveats}{memory}"
    lead = "a tie in latency" if arm in tied else "slower"
    if arm.few:
        lead = "too few rounds to tell"
    return f"{caveats}{lead}: {latency_text(arm)}" + (f"; {memory}" if memory else "")
