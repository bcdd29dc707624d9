"""Rules about memory growth over many requests, and about quality and speed by size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, decided, no_rows
from hybridlab.analysis.claims.memory_and_time_rules import Sizes
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.stats import LEAST_READINGS, Estimate, slope, student, word_error_rate
from hybridlab.analysis.texts import heard, whole
from hybridlab.units import format_bytes, format_percent

LEAST_GROWTH_SHARE = 0.01  # of the bytes that the allocator reserves
LEAST_CYCLES = 20


@dataclass(frozen=True)
class Growth:
    """What a trend gains over all its cycles, in bytes, held against what counts as growth; no
    `gain` where it cannot be told, for the reason that `words` give."""

    words: str
    case_ids: list[str]
    gain: Estimate | None = None
    limit: float = math.inf

    @property
    def grows(self) -> float:
        """The chance of such a trend though no more is gained than what counts."""
        return self.gain.above(self.limit) if self.gain else 1.0

    @property
    def is_flat(self) -> float:
        """The chance of such a trend though as much is gained."""
        return self.gain.below(self.limit) if self.gain else 1.0


@rule("growth")
def fragmentation_grows(run: RunData) -> ClaimResult:
    """Reserved but unused bytes grow over the cycles without a mitigation."""
    found = _growth(run, "none")
    if found.gain is None:
        return ClaimResult(
            verdict="inconclusive", reason=found.words, basis=", ".join(found.case_ids)
        )
    verdict, chance = decided(found.grows, found.is_flat)
    words = {"supported": "grow", "refuted": "do not grow"}.get(verdict, "may or may not grow")
    return run.result(
        verdict,
        f"idle reserved bytes {words} with the cycles",
        measured=found.words,
        case_ids=found.case_ids,
        chance=chance,
    )


@rule("cure")
def mitigation_cures(run: RunData, *, mitigation: str) -> ClaimResult:
    """A mitigation ends that growth: the same cycles with and without it."""
    before, after = _growth(run, "none"), _growth(run, mitigation)
    verdict, chance = decided(
        max(before.grows, after.is_flat),
        max(before.grows, after.grows),
    )
    reason = "a trend is missing or unclear"
    if decided(before.grows, before.is_flat)[0] == "refuted":
        reason = "nothing grew without a remedy, so there was nothing to cure"
    elif verdict == "supported":
        reason = f"{mitigation} ends a growth that is there without it"
    elif verdict == "refuted":
        reason = f"memory grows with {mitigation} as well"
    return run.result(
        verdict,
        reason,
        measured=f"none: {before.words}; {mitigation}: {after.words}",
        case_ids=[*before.case_ids, *after.case_ids],
        chance=chance,
    )


def _growth(run: RunData, mitigation: str) -> Growth:
    """Growth of the idle reserved bytes under one mitigation.

    Allocated bytes alone cannot show fragmentation: what is lost is reserved and not allocated.
    """
    cycles = run.rows("cycles")
    cases = run.of("soak")[["notebook", "case_id"]]
    cycles = cycles[cycles["mitigation"] == mitigation].merge(cases, on=["notebook", "case_id"])
    ids = list(cycles["case_id"].unique())
    arm = next((arm for arm in memory_growth.arms(cycles) if arm.strategy == "sequential"), None)
    if arm is None:
        return Growth(f"{mitigation}: no cycles", ids)
    rows = arm.settled
    reserved, allocated = numbers(rows, "reserved_bytes"), numbers(rows, "allocated_bytes")
    if not (reserved.notna() & allocated.notna()).any():
        return Growth(f"{mitigation}: the rows hold no reserved bytes", ids)
    if len(rows) < LEAST_CYCLES:
        return Growth(f"{mitigation}: {len(rows)} cycles, {LEAST_CYCLES} are needed", ids)
    gain = gained(list(rows["cycle"]), list(reserved - allocated))
    shown = gain.interval()
    low, value, high = map(format_bytes, (shown.low, shown.value, shown.high))
    words = f"{value} [{low}, {high}] of growth over {np.ptp(rows['cycle']):.0f} cycles"
    return Growth(words, ids, gain, LEAST_GROWTH_SHARE * float(reserved.median()))


def gained(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """What the trend of y, read at evenly spaced x, gains from the first x to the last."""
    per_x, span = slope(x, y), float(np.ptp(x))
    return Estimate(per_x.value * span, per_x.error * span, per_x.freedom, per_x.n)


@rule("quality", subject="texts")
def quality_order(run: RunData, *, sizes: Sizes) -> ClaimResult:
    """Sizes from the lowest word error rate to the highest, compared clip by clip."""
    trials = heard(_sized_trials(run))
    trials = trials[trials["asr_model"].isin(sizes)]
    rates = {
        size: {
            str(clip): word_error_rate(list(own["reference"]), list(own["transcript"]))
            for clip, own in trials[trials["asr_model"] == size].groupby("clip_id")
        }
        for size in sizes
    }
    return _size_order(
        run,
        trials,
        rates,
        rising=True,
        unit="clips",
        words=("the word error rates rise in this order", "worse has the lower rate"),
        show=lambda rate: format_percent(float(np.mean([*rate.values()])), 1),
    )


@rule("size-speed", subject="times")
def size_speed(run: RunData, *, sizes: Sizes) -> ClaimResult:
    """Sizes from the one that transcribes most audio per second to the one that does least,
    compared case by case."""
    trials = _sized_trials(run)
    trials = trials.assign(rtfx=numbers(trials, "rtfx")).dropna(subset=["rtfx"])
    trials = trials[trials["asr_model"].isin(sizes)]
    rates = {}
    for size in sizes:
        own = trials[trials["asr_model"] == size]
        medians = own.groupby(["notebook", "case_id"])["rtfx"].median()
        rates[size] = dict(enumerate(np.log(medians)))
    return _size_order(
        run,
        trials,
        rates,
        rising=False,
        unit="cases",
        words=("the real-time factors fall in this order", "slower is faster"),
        show=lambda rate: f"{math.exp(np.mean([*rate.values()])):.3g} x real time",
    )


def _sized_trials(run: RunData) -> pd.DataFrame:
    """Clips that a Whisper transcribed alone and to their end, each with that Whisper's size."""
    cases = run.of("quality")[["notebook", "case_id", "asr_model"]].drop_duplicates()
    trials = whole(run.trials).drop(columns="asr_model", errors="ignore")
    return trials.merge(cases, on=["notebook", "case_id"])


def _size_order(
    run: RunData,
    trials: pd.DataFrame,
    rates: Mapping[str, Mapping[Any, float]],
    *,
    rising: bool,
    unit: str,
    words: tuple[str, str],
    show: Callable[[Mapping[Any, float]], str],
) -> ClaimResult:
    """Whether each size's readings lie beyond those of the one before it, paired by key; `words`:
    what holds then, and what a size that is said to be ... does else."""
    thin = [f"{size} {len(rate)}" for size, rate in rates.items() if len(rate) < LEAST_READINGS]
    if thin:
        return no_rows(f"too few {unit} to tell ({', '.join(thin)}; {LEAST_READINGS} are needed)")
    steps = [
        student(
            (later[key] - one[key]) * (1 if rising else -1) for key in one.keys() & later.keys()
        )
        for one, later in itertools.pairwise(rates.values())
    ]
    verdict, chance = decided(
        max(step.above() for step in steps),
        len(steps) * min(step.below() for step in steps),
    )
    reasons = {"supported": words[0], "refuted": f"a size that is said to be {words[1]}"}
    return run.result(
        verdict,
        reasons.get(verdict, "no difference can be told in one of the steps"),
        measured=", ".join(
            f"{size} {show(rate)}, n = {len(rate)} {unit}" for size, rate in rates.items()
        ),
        case_ids=trials["case_id"],
        chance=chance,
    )
