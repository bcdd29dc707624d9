"""Statistics of small samples: means with Student's interval, several findings at once, medians
with bootstrap intervals, trends, word error rate."""

from __future__ import annotations

import functools
import importlib.util
import math
import runpy
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
#: A statistic over the last axis, as numpy's own are.
Statistic = Callable[..., Any]
K = TypeVar("K", bound=Hashable)

RESAMPLES = 2_000
#: Of every interval.
LEVEL = 0.95
STABLE_HALF_WIDTH = 0.10  # of the median
#: Fewer readings than these have no interval, and nothing is said of a difference.
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

    def exponential(self) -> Interval:
        """Of logarithms: the interval of what they are the logarithms of."""
        return Interval(math.exp(self.value), math.exp(self.low), math.exp(self.high), self.n)


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error on so many degrees of freedom, from `n` readings; the
    error is not-a-number where they are too few."""

    value: float
    error: float
    freedom: float
    n: int

    def interval(self) -> Interval:
        """The 95 % interval by Student's t; not-a-number bounds without an error."""
        if math.isnan(self.error):
            return Interval(self.value, math.nan, math.nan, self.n)
        half = student_quantile(self.freedom) * self.error
        return Interval(self.value, self.value - half, self.value + half, self.n)

    def above(self, limit: float = 0.0) -> float:
        """How often an estimate lies so far above `limit` though the truth is `limit`; 1 without
        an error, so that nothing follows."""
        gap = self.value - limit
        if math.isnan(gap) or math.isnan(self.error):
            return 1.0
        if self.error == 0:
            return 0.0 if gap > 0 else 1.0
        return student_tail(gap / self.error, self.freedom)

    def below(self, limit: float = 0.0) -> float:
        """The same for below."""
        return Estimate(-self.value, self.error, self.freedom, self.n).above(-limit)

    def beyond(self, least: float = 0.0) -> float:
        """The same for farther from 0 than `least`, on either side."""
        return min(1.0, 2 * min(self.above(least), self.below(-least)))


def student(values: Iterable[float]) -> Estimate:
    """The mean of independent readings, not-a-number left out; without an error below five."""
    known = _finite(values)
    n = len(known)
    value = float(known.mean()) if n else math.nan
    if n < LEAST_READINGS:
        return Estimate(value, math.nan, math.nan, n)
    return Estimate(value, float(known.std(ddof=1)) / math.sqrt(n), n - 1, n)


def welch(after: Iterable[float], before: Iterable[float]) -> Estimate:
    """The mean of one sample less that of an independent one (Welch 1947, Biometrika 34, 28); n is
    that of the smaller."""
    one, other = student(after), student(before)
    squares = [one.error**2, other.error**2]
    scatter = squares[0] ** 2 / one.freedom + squares[1] ** 2 / other.freedom if any(squares) else 0
    freedom = sum(squares) ** 2 / scatter if scatter else one.freedom + other.freedom
    n = min(one.n, other.n)
    return Estimate(one.value - other.value, math.sqrt(sum(squares)), freedom, n)


def holm(chances: Mapping[K, float]) -> set[K]:
    """Which of several findings, each with the chance that it comes by itself, hold together: in
    95 % of runs without any effect none does (Holm 1979, Scand. J. Statist. 6, 65)."""
    held: set[K] = set()
    for rank, (key, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        if chance > (1 - LEVEL) / (len(chances) - rank):
            break
        held.add(key)
    return held


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


def student_tail(t: float, freedom: float) -> float:
    """The chance that Student's t exceeds `t`: its density over atan(t / sqrt(freedom)) is
    proportional to cos^(freedom - 1), integrated by Gauss and Legendre."""
    start = math.atan(t / math.sqrt(freedom))
    half = (math.pi / 2 - start) / 2
    density = np.cos(start + half * (1 + _NODES)) ** (freedom - 1)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return min(1.0, float(half * (_WEIGHTS @ density)) * math.exp(scale))


@functools.cache
def student_quantile(freedom: float) -> float:
    """Student's t that bounds a 95 % interval, by bisection of `student_tail`."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        beyond = student_tail(math.sqrt(freedom) * math.tan(middle), freedom)
        low, high = (middle, high) if beyond > (1 - LEVEL) / 2 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _finite(values: Iterable[float]) -> Array:
    array = np.asarray([math.nan if v is None else v for v in values], dtype=np.float64)
    finite: Array = array[np.isfinite(array)]
    return finite


def bootstrap_interval(values: Iterable[float], statistic: Statistic = np.median) -> Interval:
    """Percentile bootstrap of `statistic`, not-a-number left out; NaN bounds without two values."""
    sample = _finite(values)
    n = len(sample)
    value = float(statistic(sample)) if n else math.nan
    if n < 2 or math.isnan(value):
        return Interval(value, math.nan, math.nan, n)
    drawn = sample[np.random.default_rng(0).integers(0, n, (RESAMPLES, n))]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(statistic(drawn, axis=-1), (tail, 1 - tail))
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


def is_stable(interval: Interval) -> bool:
    """Whether it is known and no wider than 10 % of the value on either side."""
    return interval.half_width <= STABLE_HALF_WIDTH * abs(interval.value)


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """The trend of y over evenly spaced x, in y's unit per x's unit; not-a-number below five
    readings.

    Readings that wander like a random walk have no other trend than their mean step, whose error
    is Student's. They count as wandering unless the test of Dickey and Fuller (1979, J. Am. Stat.
    Assoc. 74, 427; with a trend, at 1 %) says that they come back to a line. Then the trend is the
    least-squares slope; neighbouring readings depend on each other, so fewer of them count:
    residuals with correlation r at lag 1 are worth n (1 - r) / (1 + r) independent ones (Santer et
    al. 2000, J. Geophys. Res. 105, 7337), r being corrected for its bias in short series (Kendall
    1954).
    """
    pairs = np.asarray([x, y], dtype=np.float64)
    xs, ys = pairs[:, np.isfinite(pairs).all(axis=0)]
    n = len(xs)
    if n < LEAST_READINGS or np.ptp(xs) == 0:
        return Estimate(math.nan, math.nan, math.nan, n)
    centred = xs - xs.mean()
    spread = float(centred @ centred)
    value = float(centred @ ys) / spread
    residuals = ys - ys.mean() - value * centred
    if np.abs(residuals).max() <= 1e-9 * np.abs(ys).max():  # a line
        return Estimate(value, 0.0, n - 2, n)
    if _wanders(residuals):
        step = student(np.diff(ys) / np.diff(xs))
        return Estimate(step.value, step.error, step.freedom, n)
    freedom = _worth(residuals) - 2
    return Estimate(value, math.sqrt(float(residuals @ residuals) / freedom / spread), freedom, n)


def _wanders(residuals: Array) -> bool:
    """Whether each reading starts from the one before rather than from a line: n (r - 1), r by
    least squares with a constant and a trend, lies above its 1 % point of a random walk (Fuller
    1976, table 8.5.1: -22.5 of 25 readings, -25.7 of 50, -29.5 of many)."""
    n = len(residuals)
    known = np.column_stack([np.ones(n - 1), np.arange(n - 1), residuals[:-1]])
    r = float(np.linalg.lstsq(known, residuals[1:], rcond=None)[0][2])
    return n * (r - 1) > -29.5 + 175 / n


_MOST_CORRELATION = 0.95


def _worth(residuals: Array) -> float:
    """How many independent readings a series with this memory stands for."""
    n = len(residuals)
    lagged = float(residuals[1:] @ residuals[:-1]) / float(residuals @ residuals)
    lagged = max(0.0, lagged)
    lagged = min(_MOST_CORRELATION, lagged + (1 + 4 * lagged) / n)
    return max(float(LEAST_READINGS), n * (1 - lagged) / (1 + lagged))


@functools.cache
def _normaliser() -> Callable[[str], str]:
    """openai-whisper's `BasicTextNormalizer`, its file loaded by itself: the package imports torch,
    which a kernel and a report do without."""
    package = importlib.util.find_spec("whisper")
    assert package is not None  # required
    assert package.origin is not None
    file = Path(package.origin).parent / "normalizers" / "basic.py"
    normalise: Callable[[str], str] = runpy.run_path(str(file))["BasicTextNormalizer"]()
    return normalise


def aligned_words(reference: str, hypothesis: str) -> Any:
    """jiwer's alignment of the two (`WordOutput`), both through Whisper's own normaliser for any
    language (lower case, no punctuation, nothing in brackets). Its English one would join spoken
    digits to one number, a single word. None without a word in the reference.
    """
    import jiwer

    normalise = _normaliser()
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
