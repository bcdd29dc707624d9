"""Known answers of the statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybridlab.analysis.stats import (
    Interval,
    bootstrap_interval,
    holm,
    is_stable,
    slope,
    student,
    student_quantile,
    student_tail,
    tail,
    welch,
    word_error_rate,
)


def test_interval_covers_the_median_of_a_known_distribution() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        interval = bootstrap_interval(rng.normal(10, 1, 40))
        hits += interval.low <= 10 <= interval.high
    assert hits >= 52  # 95 % of 60 are 57; the percentile bootstrap runs a little short


def test_interval_is_the_same_each_time_and_takes_other_statistics() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, np.mean).value == pytest.approx(6.2)


def test_interval_leaves_out_what_is_missing_and_names_its_n() -> None:
    interval = bootstrap_interval([2.0, math.nan, 2.0, math.inf])
    assert (interval.value, interval.low, interval.high, interval.n) == (2.0, 2.0, 2.0, 2)


def test_interval_of_nothing_is_empty_and_of_one_value_has_no_bounds() -> None:
    for nothing in ([], [math.nan]):
        assert bootstrap_interval(nothing).n == 0
        assert math.isnan(bootstrap_interval(nothing).value)
    assert bootstrap_interval([3.0]).value == 3.0
    assert math.isnan(bootstrap_interval([3.0]).low)


@pytest.mark.parametrize(
    ("values", "stable"),
    [
        ([1.0, 1.01, 0.99, 1.0, 1.02], True),
        ([1.0, 1.01, 0.99, 1.0], False),  # too few
        ([1.0, 2.0, 3.0, 1.5, 2.5], False),  # too wide
        ([], False),
    ],
)
def test_stable(values: list[float], stable: bool) -> None:
    assert is_stable(student(values).interval()) is stable


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (1000, 1.962)]
)
def test_students_quantile_is_the_tables(freedom: float, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=0.001)
    assert student_tail(quantile, freedom) == pytest.approx(0.025, rel=0.001)
    assert student_tail(-quantile, freedom) == pytest.approx(0.975, rel=0.001)


def test_fewer_than_five_readings_say_nothing() -> None:
    few = student([1.0, 1.1, 0.9, 1.0])
    assert few.value == pytest.approx(1.0)
    assert math.isnan(few.interval().low)
    assert few.above(-9.0) == few.below(9.0) == few.beyond() == 1.0
    assert welch([9.0] * 4, [1.0] * 9).beyond() == 1.0


def test_readings_without_scatter_are_certain() -> None:
    same = student([2.0] * 5)
    assert (same.above(1.9), same.above(2.0), same.above(2.1)) == (0.0, 1.0, 1.0)
    assert welch([2.0] * 5, [1.0] * 5).beyond(0.5) == 0.0


def test_welch_of_a_known_pair() -> None:
    """Variances 2.5 and 10: t = -3 / sqrt(2.5) on 6.25 / (0.25 / 4 + 4 / 4) degrees."""
    found = welch([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert (found.value, found.error) == pytest.approx((-3.0, math.sqrt(2.5)))
    assert found.freedom == pytest.approx(6.25 / (0.0625 + 1.0))


def test_holm_steps_down_until_one_does_not_hold() -> None:
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04}) == {"a"}
    assert holm({"a": 0.02, "b": 0.9, "c": 0.9}) == set()
    assert holm({}) == set()


def interval_of(x: list[int], y: list[float]) -> Interval:
    return slope(x, y).interval()


def test_slope_of_a_line_is_exact_and_of_noise_includes_zero() -> None:
    x = list(range(30))
    line = interval_of(x, [2.0 * value + 7 for value in x])
    assert (line.value, line.low, line.high) == pytest.approx((2.0, 2.0, 2.0))
    noise = interval_of(x, np.random.default_rng(5).normal(0, 1, 30).tolist())
    assert noise.low < 0 < noise.high


def test_slope_finds_a_trend_in_noise() -> None:
    rng = np.random.default_rng(1)
    x = list(range(40))
    trend = interval_of(x, [0.5 * value + rng.normal(0, 1) for value in x])
    assert trend.low < 0.5 < trend.high
    assert trend.low > 0


def test_slope_needs_five_readings_and_a_spread() -> None:
    assert math.isnan(interval_of([0, 1, 2, 3], [1, 2, 3, 4]).value)
    assert math.isnan(interval_of([1] * 5, [1, 2, 3, 4, 5]).value)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_an_interval_of_a_slope_covers_it_as_often_as_it_says(memory: float) -> None:
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = np.zeros(120)
        for i in range(1, 120):
            noise[i] = memory * noise[i - 1] + rng.normal()
        trend = interval_of(list(range(100)), list(noise[20:]))
        hits += trend.low <= 0 <= trend.high
    assert 180 <= hits <= 199  # 95 % of 200 are 190


@pytest.mark.parametrize("n", [20, 33, 100])
@pytest.mark.parametrize("kind", ["a random walk", "a level per process"])
def test_what_wanders_does_not_grow(kind: str, n: int) -> None:
    grows = 0
    for seed in range(200):
        steps = np.random.default_rng(seed).normal(size=n)
        y = np.cumsum(steps) if kind == "a random walk" else np.repeat(steps, 6)[:n]
        grows += interval_of(list(range(n)), list(y)).low > 0
    assert grows <= 10  # 5 % of 200


def test_a_walk_with_a_drift_grows() -> None:
    found = 0
    for seed in range(50):
        steps = np.random.default_rng(seed).normal(1.0, 1.0, 60)
        found += interval_of(list(range(60)), list(np.cumsum(steps))).low > 0
    assert found >= 48


def test_word_error_rate_ignores_case_and_punctuation() -> None:
    assert word_error_rate(["Hello, World!"], ["hello world"]) == 0
    assert word_error_rate(["one two three four"], ["one two tree four"]) == 0.25
    assert word_error_rate(["a well-known word"], ["a well known word"]) == 0
    assert word_error_rate(["it's so"], ["It's so."]) == 0


def test_word_error_rate_pools_words_and_skips_empty_references() -> None:
    assert word_error_rate(["a b c", "d", "..."], ["a b c", "x", "noise"]) == 0.25
    assert word_error_rate(["one two"], [""]) == 1
    assert math.isnan(word_error_rate([""], ["noise"]))


def test_a_quantile_near_the_top_takes_five_values_above_it() -> None:
    assert math.isnan(tail(range(99)))
    assert tail(range(100)) == pytest.approx(94.05)
    assert math.isnan(tail(range(499), 0.99))
    assert tail([7.0] * 500, 0.99) == 7.0
