"""Statistics of small samples: medians with bootstrap intervals, trends, word error rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: A statistic over the last axis, as numpy's own are.
Statistic = Callable[..., Any]

RESAMPLES = 2_000
STABLE_HALF_WIDTH = 0.10  # of the median
STABLE_LEAST_N = 5


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval, in the unit of the values; `n` values stand behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals share a point: then neither is clearly the larger."""
        return self.low <= other.high and other.low <= self.high


def _finite(values: Iterable[float]) -> Array:
    array = np.asarray([math.nan if v is None else v for v in values], dtype=np.float64)
    finite: Array = array[np.isfinite(array)]
    return finite


def bootstrap_interval(
    values: Iterable[float],
    statistic: Statistic = np.median,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of `statistic`, not-a-number left out; NaN bounds without two values."""
    sample = _finite(values)
    if len(sample) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(statistic(sample))
    if len(sample) == 1:
        return Interval(value, math.nan, math.nan, 1)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    estimates = statistic(sample[drawn], axis=-1)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, (tail, 1 - tail))
    return Interval(value, float(low), float(high), len(sample))


def ecdf(values: Iterable[float]) -> tuple[Array, Array]:
    """Sorted values and the share of the sample that is at most each of them."""
    sample = np.sort(_finite(values))
    return sample, np.arange(1, len(sample) + 1) / max(len(sample), 1)


def is_stable(values: Iterable[float]) -> bool:
    """At least 5 values and a bootstrap interval within 10 % of the median on either side."""
    interval = bootstrap_interval(values)
    if interval.n < STABLE_LEAST_N:
        return False
    return interval.half_width <= STABLE_HALF_WIDTH * abs(interval.value)


def slope_with_interval(
    x: Sequence[float], y: Sequence[float], *, seed: int = 0, level: float = 0.95
) -> Interval:
    """Least-squares slope of y over x in y's unit per x's unit.

    Readings of neighbouring cycles depend on each other, so the interval comes from residuals that
    are drawn in blocks of about sqrt(n) (moving-block bootstrap, Kuensch 1989).
    """
    pairs = np.asarray([x, y], dtype=np.float64)
    xs, ys = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = len(xs)
    if n < 3 or np.ptp(xs) == 0:
        return Interval(math.nan, math.nan, math.nan, n)
    slope, intercept = (float(value) for value in np.polyfit(xs, ys, 1))
    fitted = intercept + slope * xs
    residuals = _block_resamples(ys - fitted, np.random.default_rng(seed))
    centred = xs - xs.mean()
    slopes = slope + residuals @ centred / float(centred @ centred)
    tail = (1 - level) / 2
    low, high = np.quantile(slopes, (tail, 1 - tail))
    return Interval(slope, float(low), float(high), n)


def _block_resamples(residuals: Array, rng: np.random.Generator) -> Array:
    """`RESAMPLES` rows of len(residuals) values, drawn in blocks, each row with mean zero."""
    n = len(residuals)
    length = math.ceil(math.sqrt(n))
    blocks = math.ceil(n / length)
    starts = rng.integers(0, n - length + 1, (RESAMPLES, blocks))
    indices = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :n]
    drawn = residuals[indices]
    centred: Array = drawn - drawn.mean(axis=1, keepdims=True)
    return centred


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word errors over reference words, both in lower case without punctuation; 0.03 is 3 %.

    Clips without a word in the reference are left out; NaN where none is left.
    """
    import jiwer

    clean = jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.SubstituteRegexes({r"[^\w\s']": " "}),
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
        ]
    )
    pairs = [
        (clean(reference), clean(hypothesis))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    pairs = [pair for pair in pairs if pair[0]]
    if not pairs:
        return math.nan
    return float(jiwer.wer([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
