"""Rules about memory growth over many requests, and about quality and speed by size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import LEAST_TRIALS, compare, numbers
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, Verdict, no_rows, supported_if
from hybridlab.analysis.claims.memory_and_time_rules import Sizes
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.stats import (
    Interval,
    bootstrap_interval,
    slope_with_interval,
    word_error_rate,
)
from hybridlab.units import format_bytes

LEAST_GROWTH_SHARE = 0.01  # of the bytes that the allocator reserves
LEAST_CYCLES = 20

Trend = Literal["grows", "flat", "unclear"]


@rule("growth")
def fragmentation_grows(run: RunData) -> ClaimResult:
    """Reserved but unused bytes grow over the cycles without a mitigation."""
    trend, measured, ids = _trend(run, "none")
    if trend == "unclear":
        return ClaimResult(verdict="inconclusive", reason=measured, basis=", ".join(ids))
    return run.result(
        supported_if(trend == "grows"),
        f"idle reserved bytes {'grow' if trend == 'grows' else 'do not grow'} with the cycles",
        measured=measured,
        case_ids=ids,
    )


@rule("cure")
def mitigation_cures(run: RunData, *, mitigation: str) -> ClaimResult:
    """A mitigation ends that growth: the same cycles with and without it."""
    before, measured_before, ids_before = _trend(run, "none")
    after, measured_after, ids_after = _trend(run, mitigation)
    verdict: Verdict = "inconclusive"
    if before == "flat":
        reason = "nothing grew without a remedy, so there was nothing to cure"
    elif "unclear" in (before, after):
        reason = "a trend is missing or unclear"
    elif after == "flat":
        verdict, reason = "supported", f"{mitigation} ends a growth that is there without it"
    else:
        verdict, reason = "refuted", f"memory grows with {mitigation} as well"
    return run.result(
        verdict,
        reason,
        measured=f"none: {measured_before}; {mitigation}: {measured_after}",
        case_ids=[*ids_before, *ids_after],
    )


def _trend(run: RunData, mitigation: str) -> tuple[Trend, str, list[str]]:
    """Growth of the idle reserved bytes under one mitigation, in words, and its case ids.

    Allocated bytes alone cannot show fragmentation: what is lost is reserved and not allocated.
    """
    cycles = run.rows("cycles")
    cases = run.of("soak")[["notebook", "case_id"]]
    cycles = cycles[cycles["mitigation"] == mitigation].merge(cases, on=["notebook", "case_id"])
    ids = list(cycles["case_id"].unique())
    arm = next((arm for arm in memory_growth.arms(cycles) if arm.strategy == "sequential"), None)
    if arm is None:
        return "unclear", f"{mitigation}: no cycles", ids
    rows = arm.settled
    reserved, allocated = numbers(rows, "reserved_bytes"), numbers(rows, "allocated_bytes")
    if not (reserved.notna() & allocated.notna()).any():
        return "unclear", f"{mitigation}: the rows hold no reserved bytes", ids
    if len(rows) < LEAST_CYCLES:
        return "unclear", f"{mitigation}: {len(rows)} cycles, {LEAST_CYCLES} are needed", ids
    limit = LEAST_GROWTH_SHARE * float(reserved.median())
    trend, gain = growth(list(rows["cycle"]), list(reserved - allocated), limit=limit)
    low, value, high = map(format_bytes, (gain.low, gain.value, gain.high))
    cycle_count = f"{np.ptp(rows['cycle']):.0f}"
    return trend, f"{value} [{low}, {high}] of growth over {cycle_count} cycles", ids


def growth(x: Sequence[float], y: Sequence[float], *, limit: float) -> tuple[Trend, Interval]:
    """Whether y, read at evenly spaced x, gains more than `limit` from the first x to the last, and
    what the trend gains, in y's unit."""
    slope = slope_with_interval(x, y)
    span = float(np.ptp(x))
    gain = Interval(slope.value * span, slope.low * span, slope.high * span, slope.n)
    trend: Trend = "grows" if gain.low > limit else "flat" if gain.high <= limit else "unclear"
    return trend, gain


@rule("quality", subject="texts")
def quality_order(run: RunData, *, sizes: Sizes) -> ClaimResult:
    """Sizes from the lowest word error rate per clip to the highest."""
    trials = _sized_trials(run).dropna(subset=["transcript", "reference"])
    return _size_order(
        run,
        trials,
        {size: _error_rates(trials[trials["asr_model"] == size]) for size in sizes},
        rising=True,
        clips="transcripts with a reference",
        words=("the word error rates rise in this order", "worse has the lower rate"),
        show=lambda rate: f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]",
    )


@rule("size-speed", subject="times")
def size_speed(run: RunData, *, sizes: Sizes) -> ClaimResult:
    """Sizes from the one that transcribes most audio per second to the one that does least."""
    trials = _sized_trials(run)
    trials = trials.assign(rtfx=numbers(trials, "rtfx")).dropna(subset=["rtfx"])
    return _size_order(
        run,
        trials,
        {size: bootstrap_interval(trials[trials["asr_model"] == size]["rtfx"]) for size in sizes},
        rising=False,
        clips="timed clips",
        words=("the real-time factors fall in this order", "slower is faster"),
        show=lambda rate: f"{rate.value:.3g} [{rate.low:.3g}, {rate.high:.3g}] x real time",
    )


def _sized_trials(run: RunData) -> pd.DataFrame:
    """Clips that a Whisper transcribed alone, each with that Whisper's size."""
    cases = run.of("quality")[["notebook", "case_id", "asr_model"]].drop_duplicates()
    trials = run.trials.drop(columns="asr_model", errors="ignore")
    return trials.merge(cases, on=["notebook", "case_id"])


def _size_order(
    run: RunData,
    trials: pd.DataFrame,
    rates: dict[str, Interval],
    *,
    rising: bool,
    clips: str,
    words: tuple[str, str],
    show: Callable[[Interval], str],
) -> ClaimResult:
    """Whether each size's rate lies beyond the one before it, with intervals apart; `words`: what
    holds then, and what a size that is said to be ... does else."""
    thin = [f"{size} {rate.n}" for size, rate in rates.items() if rate.n < LEAST_TRIALS]
    if thin:
        return no_rows(f"too few {clips} ({', '.join(thin)}); {LEAST_TRIALS} are needed")
    expected = -1 if rising else 1
    signs = [compare(one, next_one) for one, next_one in itertools.pairwise(rates.values())]
    verdict: Verdict = "inconclusive"
    reason = "intervals overlap"
    if -expected in signs:
        verdict, reason = "refuted", f"a size that is said to be {words[1]}"
    elif all(sign == expected for sign in signs):
        verdict, reason = "supported", words[0]
    return run.result(
        verdict,
        reason,
        measured=", ".join(f"{size} {show(rate)}, n = {rate.n}" for size, rate in rates.items()),
        case_ids=trials[trials["asr_model"].isin(list(rates))]["case_id"],
    )


def _error_rates(trials: pd.DataFrame) -> Interval:
    pairs = zip(trials["reference"].astype(str), trials["transcript"].astype(str), strict=True)
    return bootstrap_interval([word_error_rate([one], [other]) for one, other in pairs], np.mean)
