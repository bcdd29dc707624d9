"""Waiting by known answers: queues with a formula, knees and break-evens of made-up rows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hybridlab.analysis import queueing
from hybridlab.reporting import figures, tables

CONTROL = "sequential/plain"


def arrivals(
    p95_s: dict[str, list[float]], *, n: int = 100, most_rps: float = 10.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and cases of arms at 1, 2, 3 ... requests per second that came, planned as half as
    many; every request takes its p95. A race in which each arm served `most_rps`."""
    trials, cases = [], []
    for arm, latencies in p95_s.items():
        strategy, variant = arm.split("/")
        race = {"case_id": arm, "experiment": "strategy_comparison", "throughput_rps": most_rps}
        cases.append({**race, "strategy": strategy, "variant": variant, "status": "ok"})
        for number, latency_s in enumerate(latencies, 1):
            case = {"case_id": f"{arm}-{number}", "experiment": "load_sweep", "device": "cpu"}
            named = {**case, "strategy": strategy, "variant": variant}
            rate = {"rate_rps": number / 2, "load": number / 10, "throughput_rps": float(number)}
            rate["arrival_rate_rps"] = float(number)
            cases.append({**named, **rate, "status": "ok"})
            trials += [
                {**named, "latency_s": latency_s, "queue_time_s": 0.1, "is_first_request": False}
                for _ in range(n)
            ]
            trials.append(
                {**named, "latency_s": 99.0, "queue_time_s": None, "is_first_request": True}
            )
    return pd.DataFrame(trials), pd.DataFrame(cases)


def services(*, n: int = 5, spread: float = 0.0, **seconds: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": CONTROL if arm == "control" else f"{arm}/x",
            "audio_s": 30.0 * (row + 1),
            "n": n,
            "seconds": service_s * np.linspace(1 - spread, 1 + spread, n),
        }
        for arm, own in seconds.items()
        for row, service_s in enumerate(own)
    )


def test_queues_with_known_answers() -> None:
    assert queueing.mean_latency_s(2.0, 1.0, 4.0) == pytest.approx(2.0 / (1 - 0.5))  # M/M/1
    assert queueing.mean_latency_s(2.0, 0.0, 4.0) == pytest.approx(3.0)  # M/D/1
    assert queueing.mean_latency_s(2.0, 0.0, 1e9) == pytest.approx(2.0)
    assert math.isinf(queueing.mean_latency_s(2.0, 0.0, 2.0))


def test_the_formula_foretells_a_simulated_queue() -> None:
    rng = np.random.default_rng(0)
    due = np.cumsum(rng.exponential(1.0, 200_000))
    free, latencies = 0.0, []
    for arrival in due:
        free = max(free, arrival) + 0.6
        latencies.append(free - arrival)
    assert np.mean(latencies) == pytest.approx(queueing.mean_latency_s(0.6, 0.0, 1.0), rel=0.02)


def test_the_knee_is_the_last_rate_before_p95_doubles() -> None:
    trials, cases = arrivals({CONTROL: [1.0, 1.5, 3.0, 1.0], "pipelined/prefetch": [1.0] * 4})
    points = queueing.arrival_points(trials, cases)
    assert queueing.knees(points) == {CONTROL: 2.0, "pipelined/prefetch": 4.0}
    table = tables.arrivals_table(trials, cases)
    assert list(table["rate /s"])[:4] == ["1", "2", "3", "4"]  # as they came, not as planned
    assert list(table[table["strategy"] == CONTROL]["before the knee"]) == [
        "yes",
        "yes",
        "no",
        "no",
    ]
    assert (table["n"] == 100).all()  # without first requests
    title = " ".join(figures.load_sweep(trials, cases).get_suptitle().split())
    assert title.startswith("pipelined/prefetch holds 4 requests per second")


def test_an_arm_that_was_asked_for_less_does_not_hold_less() -> None:
    trials, cases = arrivals({CONTROL: [1.0] * 3, "parallel/single-container": [1.0]})
    figure = figures.load_sweep(trials, cases)
    title = " ".join(figure.get_suptitle().split())
    assert title == "No arm reaches its knee, asked for up to 3 requests per second"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "sequential/plain (no knee up to 3 / s)",
        "parallel/single-container (1 / s alone)",
    ]
    trials, cases = arrivals({CONTROL: [1.0] * 3, "parallel/threads": [1.0, 9.0]})
    title = " ".join(figures.load_sweep(trials, cases).get_suptitle().split())
    assert title.startswith(
        "sequential/plain holds 3 requests per second before its knee, parallel"
    )


def test_cases_that_failed_have_no_point() -> None:
    trials, cases = arrivals({CONTROL: [1.0, 1.0]})
    cases.loc[cases["arrival_rate_rps"] == 2.0, "status"] = "invalid"
    assert list(queueing.arrival_points(trials, cases)["rate_rps"]) == [1.0]


def test_no_knee_lies_at_what_an_arm_cannot_serve() -> None:
    """p95 of a short run does not double at once where more comes than can be served."""
    trials, cases = arrivals({CONTROL: [1.0, 1.1, 1.2, 1.3]}, most_rps=2.5)
    points = queueing.arrival_points(trials, cases)
    assert queueing.knees(points) == {CONTROL: 2.0}
    trials, cases = arrivals({CONTROL: [1.0]}, most_rps=0.5)
    assert math.isnan(queueing.knees(queueing.arrival_points(trials, cases))[CONTROL])
    title = " ".join(figures.load_sweep(trials, cases).get_suptitle().split())
    assert title == "No arm holds any of these rates"


def test_of_fewer_than_100_requests_there_is_no_p95_and_no_knee() -> None:
    trials, cases = arrivals({CONTROL: [1.0, 9.0], "parallel/threads": [1.0, 2.0]}, n=99)
    points = queueing.arrival_points(trials, cases)
    assert points["p95_s"].isna().all()
    assert (points["p50_s"] > 0).all()
    assert all(math.isnan(rate) for rate in queueing.knees(points).values())
    table = tables.arrivals_table(trials, cases)
    assert set(table["p95 s"]) == set(table["before the knee"]) == {"–"}
    figure = figures.load_sweep(trials, cases)
    assert "too few requests for a p95 and a knee" in " ".join(figure.get_suptitle().split())
    assert figure.axes[1].get_ylabel().startswith("median wait")


def test_a_run_that_does_not_say_when_requests_came_has_no_points() -> None:
    trials, cases = arrivals({CONTROL: [1.0]})
    assert queueing.arrival_points(trials, cases.drop(columns="arrival_rate_rps")).empty


def test_a_faster_arm_breaks_even_and_an_overrun_one_does_not() -> None:
    cells = queueing.break_even(
        services(control=[1.0, 2.0], quick=[0.5, 1.0], slow=[1.5, 3.0]), control=CONTROL
    )
    quick, slow = cells[cells["arm"] == "quick/x"], cells[cells["arm"] == "slow/x"]
    assert (quick["ratio"].dropna() < 1).all()
    assert (slow["ratio"].dropna() > 1).all()
    assert np.isinf(slow["ratio"]).any()
    assert slow["ratio"].iloc[7] == pytest.approx(1.5, rel=0.05)  # nobody waits
    known = cells[np.isfinite(cells["ratio"]) & (cells["ratio"] > 0)]
    assert np.allclose(known["low"], known["high"])  # every request took the same time


def test_a_break_even_has_an_interval_or_is_empty() -> None:
    """The interval covers the truth's ratio; where it does not say whether an arm is overrun, and
    with fewer than five requests, the cell is empty."""
    both = {"control": [1.0], "quick": [0.8]}
    cells = queueing.break_even(services(n=20, spread=0.3, **both), control=CONTROL)
    known = cells[cells["ratio"].notna() & (cells["ratio"] > 0)]
    assert len(known) and (known["low"] < known["ratio"]).all()
    assert (known["ratio"] < known["high"]).all()
    assert known["high"].max() < 1
    assert cells["ratio"].isna().sum() > 0  # the control is near what it can serve
    few = queueing.break_even(services(n=4, spread=0.3, **both), control=CONTROL)
    assert few[["ratio", "low", "high"]].isna().all(axis=None)


def test_without_rows_nothing_is_claimed() -> None:
    empty = pd.DataFrame({"experiment": [], "is_first_request": []})
    assert queueing.arrival_points(empty, pd.DataFrame()).empty
    assert queueing.break_even(services(quick=[1.0]), control=CONTROL).empty
    assert tables.arrivals_table(empty, pd.DataFrame()).empty


def test_a_race_without_lengths_has_no_break_even() -> None:
    """`break_even_audio_s: []` leaves rows of other experiments only."""
    trials = pd.DataFrame(
        {"experiment": ["strategy_comparison"], "is_first_request": [False], "latency_s": [1.0]}
    )
    assert queueing.break_even(queueing.service_times(trials), control=CONTROL).empty
    assert not figures.break_even(trials).axes
