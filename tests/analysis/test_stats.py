"""Known answers of the statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybridlab.analysis.stats import (
    Interval,
    bootstrap_interval,
    is_stable,
    slope_with_interval,
    tail,
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


def test_overlap_is_symmetric_and_counts_touching() -> None:
    a, b, c = Interval(1, 0, 2, 5), Interval(3, 2, 4, 5), Interval(5, 4.5, 6, 5)
    assert a.overlaps(b)
    assert b.overlaps(a)
    assert not a.overlaps(c)


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
    assert is_stable(values) is stable


def test_slope_of_a_line_is_exact_and_of_noise_includes_zero() -> None:
    x = list(range(30))
    line = slope_with_interval(x, [2.0 * value + 7 for value in x])
    assert (line.value, line.low, line.high) == pytest.approx((2.0, 2.0, 2.0))
    noise = slope_with_interval(x, np.random.default_rng(5).normal(0, 1, 30).tolist())
    assert noise.low < 0 < noise.high


def test_slope_finds_a_trend_in_noise() -> None:
    rng = np.random.default_rng(1)
    x = list(range(40))
    slope = slope_with_interval(x, [0.5 * value + rng.normal(0, 1) for value in x])
    assert slope.low < 0.5 < slope.high
    assert slope.low > 0


def test_slope_needs_five_readings_and_a_spread() -> None:
    assert math.isnan(slope_with_interval([0, 1, 2, 3], [1, 2, 3, 4]).value)
    assert math.isnan(slope_with_interval([1] * 5, [1, 2, 3, 4, 5]).value)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_an_interval_of_a_slope_covers_it_as_often_as_it_says(memory: float) -> None:
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = np.zeros(120)
        for i in range(1, 120):
            noise[i] = memory * noise[i - 1] + rng.normal()
        slope = slope_with_interval(list(range(100)), list(noise[20:]))
        hits += slope.low <= 0 <= slope.high
    assert 180 <= hits <= 199  # 95 % of 200 are 190


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
