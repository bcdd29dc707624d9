"""What each rule means, part three: ageing over many requests, and the quality of transcripts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import LEAST_TRIALS, compare, numbers
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, Verdict, no_rows
from hybridlab.analysis.claims.rules import GrowthRule, QualityRule, RemedyRule
from hybridlab.analysis.stats import (
    Interval,
    bootstrap_interval,
    slope_with_interval,
    word_error_rate,
)
from hybridlab.units import format_bytes

LEAST_GROWTH_SHARE = 0.01  # of the bytes that the allocator reserves
LEAST_CYCLES = 20

# ---------------------------------------------------------------------------------------- ageing

Trend = Literal["grows", "flat", "unclear"]


def check_growth(rule: GrowthRule, bench: RunData) -> ClaimResult:
    """Reserved minus allocated bytes over the cycles, without a remedy."""
    trend, told, ids = _trend(bench, "none")
    if trend == "unclear":
        return ClaimResult(verdict="inconclusive", measured="", reason=told, evidence=ids)
    return ClaimResult(
        verdict="supported" if trend == "grows" else "refuted",
        measured=told,
        reason=f"idle reserved bytes {'grow' if trend == 'grows' else 'do not grow'} with the "
        f"cycles, on {bench.place}",
        evidence=ids,
    )


def check_cure(rule: RemedyRule, bench: RunData) -> ClaimResult:
    """The same cycles with and without the remedy."""
    before, told_before, ids_before = _trend(bench, "none")
    after, told_after, ids_after = _trend(bench, rule.mitigation)
    measured = f"none: {told_before}; {rule.mitigation}: {told_after}"
    verdict: Verdict = "inconclusive"
    if before == "flat":
        reason = "nothing grew without a remedy, so there was nothing to cure"
    elif "unclear" in (before, after):
        reason = "a trend is missing or unclear"
    elif after == "flat":
        verdict, reason = "supported", f"{rule.mitigation} ends a growth that is there without it"
    else:
        verdict, reason = "refuted", f"memory grows with {rule.mitigation} as well"
    ids = ", ".join(name for name in (ids_before, ids_after) if name)
    return ClaimResult(
        verdict=verdict, measured=measured, reason=f"{reason}, on {bench.place}", evidence=ids
    )


def _trend(bench: RunData, mitigation: str) -> tuple[Trend, str, str]:
    """Growth of one remedy's idle reserved bytes, in words, and its case ids.

    Allocated bytes alone cannot show fragmentation: what is lost is reserved and not allocated.
    """
    cycles = bench.rows("cycles")
    cases = bench.of("soak")[["notebook", "case_id"]]
    cycles = cycles[cycles["mitigation"] == mitigation].merge(cases, on=["notebook", "case_id"])
    ids = ", ".join(cycles["case_id"].unique())
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
    told = (
        f"{format_bytes(gain.value)} [{format_bytes(gain.low)}, {format_bytes(gain.high)}] of "
        f"growth over {np.ptp(rows['cycle']):.0f} cycles"
    )
    return trend, told, ids


def growth(x: Sequence[float], y: Sequence[float], *, limit: float) -> tuple[Trend, Interval]:
    """Whether y, read at evenly spaced x, gains more than `limit` from the first x to the last, and
    what the trend gains, in y's unit."""
    slope = slope_with_interval(x, y)
    span = float(np.ptp(x))
    gain = Interval(slope.value * span, slope.low * span, slope.high * span, slope.n)
    trend: Trend = "grows" if gain.low > limit else "flat" if gain.high <= limit else "unclear"
    return trend, gain


# --------------------------------------------------------------------------------------- quality


def check_quality(rule: QualityRule, bench: RunData) -> ClaimResult:
    """Word error rates per clip of each size, compared in the stated order."""
    cases = bench.of("quality")
    trials = bench.trials.drop(columns="asr_model", errors="ignore").merge(
        cases[["notebook", "case_id", "asr_model"]].drop_duplicates(), on=["notebook", "case_id"]
    )
    trials = trials[trials["transcript"].notna() & trials["reference"].notna()]
    rates = {size: _error_rates(trials[trials["asr_model"] == size]) for size in rule.sizes}
    thin = [f"{size} {rate.n}" for size, rate in rates.items() if rate.n < LEAST_TRIALS]
    if thin:
        return no_rows(
            f"too few transcripts with a reference ({', '.join(thin)}); {LEAST_TRIALS} are needed"
        )
    ordered = list(rates.values())
    signs = [compare(better, worse) for better, worse in itertools.pairwise(ordered)]
    verdict: Verdict = "inconclusive"
    reason = "intervals overlap"
    if 1 in signs:
        verdict, reason = "refuted", "a size that is said to be worse has the lower rate"
    elif all(sign == -1 for sign in signs):
        verdict, reason = "supported", "the word error rates rise in this order"
    used = trials[trials["asr_model"].isin(rule.sizes)]
    return ClaimResult(
        verdict=verdict,
        measured=", ".join(
            f"{size} {rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}], n = {rate.n}"
            for size, rate in rates.items()
        ),
        reason=f"{reason}, on {bench.place}",
        evidence=", ".join(dict.fromkeys(used["case_id"])),
    )


def _error_rates(trials: pd.DataFrame) -> Interval:
    rates = [
        word_error_rate([str(reference)], [str(transcript)])
        for reference, transcript in zip(trials["reference"], trials["transcript"], strict=True)
    ]
    return bootstrap_interval(rates, np.mean)
