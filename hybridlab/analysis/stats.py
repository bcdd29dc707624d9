"""Statistics of small samples: medians with bootstrap intervals, trends, word error rate."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: A statistic over the last axis, as numpy's own are.
Statistic = Callable[..., Any]

RESAMPLES = 2_000
#: Of every interval.
LEVEL = 0.95
STABLE_HALF_WIDTH = 0.10  # of the median
STABLE_LEAST_N = 5
#: Fewer readings than these have no trend with an interval.
LEAST_READINGS = 5


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


def bootstrap_interval(values: Iterable[float], statistic: Statistic = np.median) -> Interval:
    """Percentile bootstrap of `statistic`, not-a-number left out; NaN bounds without two values."""
    return _bootstrap([_finite(values)], statistic)


def ratio_interval(before: Iterable[float], after: Iterable[float]) -> Interval:
    """Median of `after` over that of `before`, both drawn again independently (percentile
    bootstrap); n is the smaller sample. NaN bounds where either has fewer than two values."""

    def ratio(before: Array, after: Array, axis: int | None = None) -> Any:
        below, above = np.median(before, axis=axis), np.median(after, axis=axis)
        return np.divide(above, below, out=np.full_like(above, math.nan), where=below != 0)

    return _bootstrap([_finite(before), _finite(after)], ratio)


def _bootstrap(samples: Sequence[Array], statistic: Statistic) -> Interval:
    """Of a statistic of these samples, each drawn again by itself."""
    n = min(len(sample) for sample in samples)
    value = float(statistic(*samples)) if n else math.nan
    if n < 2 or math.isnan(value):
        return Interval(value, math.nan, math.nan, n)
    rng = np.random.default_rng(0)
    drawn = [sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))] for sample in samples]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(statistic(*drawn, axis=-1), (tail, 1 - tail))
    return Interval(value, float(low), float(high), n)


def quantile(values: Iterable[float], share: float) -> float:
    """Not-a-number where no value is known."""
    sample = _finite(values)
    return float(np.quantile(sample, share)) if len(sample) else math.nan


#: A quantile near the top is told by the values above it: of fewer than these it is any of them.
LEAST_ABOVE = 5


def tail(values: Iterable[float], share: float = 0.95) -> float:
    """A quantile near the top; not-a-number where fewer than `LEAST_ABOVE` values lie above it: a
    p95 takes 100 values, a p99 500."""
    sample = _finite(values)
    enough = round(len(sample) * (1 - share), 9) >= LEAST_ABOVE
    return float(np.quantile(sample, share)) if enough else math.nan


def is_stable(values: Iterable[float]) -> bool:
    """At least 5 values and a bootstrap interval within 10 % of the median on either side."""
    interval = bootstrap_interval(values)
    if interval.n < STABLE_LEAST_N:
        return False
    return interval.half_width <= STABLE_HALF_WIDTH * abs(interval.value)


def slope_with_interval(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Least-squares slope of y over x in y's unit per x's unit; x is evenly spaced. Not-a-number
    with fewer than five readings.

    Readings of neighbouring cycles depend on each other, so fewer of them count: residuals with
    correlation r at lag 1 are worth n (1 - r) / (1 + r) independent ones (Santer et al. 2000,
    J. Geophys. Res. 105, 7337), r being corrected for its bias in short series (Kendall 1954).
    """
    pairs = np.asarray([x, y], dtype=np.float64)
    xs, ys = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = len(xs)
    if n < LEAST_READINGS or np.ptp(xs) == 0:
        return Interval(math.nan, math.nan, math.nan, n)
    centred = xs - xs.mean()
    spread = float(centred @ centred)
    slope = float(centred @ ys) / spread
    residuals = ys - ys.mean() - slope * centred
    noise = float(residuals @ residuals)
    worth = _worth(residuals) if noise > 0 else float(n)
    half = _student_quantile((1 + LEVEL) / 2, worth - 2) * math.sqrt(noise / (worth - 2) / spread)
    return Interval(slope, slope - half, slope + half, n)


_MOST_CORRELATION = 0.95


def _worth(residuals: Array) -> float:
    """How many independent readings a series with this memory stands for."""
    n = len(residuals)
    lagged = float(residuals[1:] @ residuals[:-1]) / float(residuals @ residuals)
    lagged = max(0.0, lagged)
    lagged = min(_MOST_CORRELATION, lagged + (1 + 4 * lagged) / n)
    return max(float(LEAST_READINGS), n * (1 - lagged) / (1 + lagged))


def _student_quantile(share: float, freedom: float) -> float:
    """Student's t by its expansion around the normal (Abramowitz and Stegun 26.7.5): within 1 %
    from three degrees of freedom on."""
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def aligned_words(reference: str, hypothesis: str) -> Any:
    """jiwer's alignment of the two (`WordOutput`), both through Whisper's own normaliser for any
    language (lower case, no punctuation, nothing in brackets). Its English one would join spoken
    digits to one number, a single word. None without a word in the reference.
    """
    import jiwer
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normalise = BasicTextNormalizer()
    expected = normalise(reference).strip()
    return jiwer.process_words(expected, normalise(hypothesis).strip()) if expected else None


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[tuple[int, int]]:
    """Errors and reference words of each pair, as `aligned_words` sees them. Pairs without a word
    in the reference are left out."""

    @functools.cache  # greedy decoding says the same of a clip every time
    def errors(reference: str, hypothesis: str) -> tuple[int, int]:
        seen = aligned_words(reference, hypothesis)
        if seen is None:
            return 0, 0
        wrong = seen.substitutions + seen.deletions
        return wrong + seen.insertions, wrong + seen.hits

    found = [errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    return [(wrong, words) for wrong, words in found if words]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """All errors over all reference words, as `word_errors` counts them; 0.03 is 3 %. NaN without a
    reference."""
    found = word_errors(references, hypotheses)
    words = sum(count for _, count in found)
    return sum(errors for errors, _ in found) / words if words else math.nan
