"""Which strategy to pick on this device: the winner of the races, its runner-up, and why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from hybridlab.standings import (
    LEAST_TRIALS,
    PAIR_COLUMNS,
    Standing,
    race_cases,
    standings,
)
from hybridlab.stats import Interval
from hybridlab.units import format_bytes, format_seconds


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The strategy to pick for the pair that was raced; seconds and bytes inside."""

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
    highest_throughput: str
    safest_margin: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def recommend(
    cases: pd.DataFrame, trials: pd.DataFrame, *, min_margin_bytes: int = 0
) -> Recommendation | None:
    """The arm with the lowest median latency; None where no race case can be compared.

    Latencies count as multiples of the control arm (sequential/plain) of their own notebook, since
    the notebooks are not interleaved with each other; seconds are shown beside them. Arms whose
    95 % intervals overlap the fastest one's are a tie, which goes to the smaller peak. First
    requests, failed cases and cases whose texts differ from each tenant's alone are left out; so
    are arms with a margin below `min_margin_bytes` (an unknown margin is below any but 0).
    """
    arms = [
        arm
        for arm in standings(cases, trials)
        if not math.isnan(arm.relative.value)
        and (min_margin_bytes == 0 or arm.margin_bytes >= min_margin_bytes)
    ]
    if not arms:
        return None
    arms.sort(key=lambda arm: (arm.relative.value, arm.name))
    tied = [arm for arm in arms if _ties(arms[0], arm)]
    best = min(tied, key=_least_peak_first)
    rest = [arm for arm in tied if arm is not best] + [arm for arm in arms if arm not in tied]
    second = rest[0] if rest else None
    throughput = max(arms, key=lambda arm: _or(arm.rate.value, -math.inf))
    safest = max(arms, key=lambda arm: _or(arm.margin_bytes, -math.inf))
    return Recommendation(
        pair=_pair(race_cases(cases, trials)),
        strategy=best.strategy,
        variant=best.variant,
        why=_why(best, tie=len(tied) > 1),
        runner_up=second.name if second else "",
        why_not=_why_not(second, best, tie=second in tied) if second else "",
        tie=len(tied) > 1,
        n=best.n,
        median_s=best.latency_s.value,
        low_s=best.latency_s.low,
        high_s=best.latency_s.high,
        relative=best.relative.value,
        throughput_rps=best.throughput_rps,
        peak_bytes=best.peak_bytes,
        margin_bytes=best.margin_bytes,
        highest_throughput=_throughput_text(throughput),
        safest_margin=_margin_text(safest),
    )


def _ties(fastest: Standing, arm: Standing) -> bool:
    """Whether this arm cannot be told from the fastest; one value alone has no interval and so
    can never be told apart."""
    unknown = math.isnan(fastest.relative.low) or math.isnan(arm.relative.low)
    return arm is fastest or unknown or fastest.relative.overlaps(arm.relative)


def _least_peak_first(arm: Standing) -> tuple[float, float]:
    return _or(arm.peak_bytes, math.inf), arm.relative.value


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _pair(cases: pd.DataFrame) -> str:
    """'Voxtral mini-3b (random weights, float16) + Whisper medium (transformers, ...)'."""
    paired = cases[cases["whisper_size"].notna()]
    row = (paired if len(paired) else cases).iloc[0]
    voxtral, source, dtype, size, backend, whisper_source, whisper_dtype = (
        row[name] for name in PAIR_COLUMNS
    )
    first = f"Voxtral {voxtral} ({source} weights, {dtype})"
    if paired.empty:
        return first
    return f"{first} + Whisper {size} ({backend}, {whisper_source} weights, {whisper_dtype})"


def _latency_text(arm: Standing) -> str:
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


def _throughput_text(arm: Standing) -> str:
    if math.isnan(arm.throughput_rps):
        return ""
    return f"{arm.name}, {arm.throughput_rps:.3g} requests/s"


def _margin_text(arm: Standing) -> str:
    return "" if math.isnan(arm.margin_bytes) else f"{arm.name}, {format_bytes(arm.margin_bytes)}"


def _why(arm: Standing, *, tie: bool) -> str:
    lead = "tied for the lowest latency, with the smallest peak" if tie else "lowest latency"
    few = (
        f"; fewer than {LEAST_TRIALS} trials, so take it as a hint" if arm.n < LEAST_TRIALS else ""
    )
    memory = "" if math.isnan(arm.peak_bytes) else f"; peak {format_bytes(arm.peak_bytes)}"
    if not math.isnan(arm.margin_bytes):
        memory += f", margin {format_bytes(arm.margin_bytes)}"
    return f"{lead}: {_latency_text(arm)}{memory}{few}"


def _why_not(arm: Standing, best: Standing, *, tie: bool) -> str:
    if not tie:
        return f"slower: {_latency_text(arm)}"
    more = arm.peak_bytes - best.peak_bytes
    memory = "" if math.isnan(more) else f"; its peak is {format_bytes(more)} higher"
    return f"a tie in latency: {_latency_text(arm)}{memory}"
