"""What waiting adds to latency: measured where requests come at their own times, and predicted from
service times alone. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import LEAST_READINGS, LEVEL, RESAMPLES, tail
from hybridlab.results.schema import required_columns

#: The knee is the last rate whose p95 is within so many times that at the lowest rate.
KNEE_RATIO = 2.0
#: A ratio and its interval where they cannot be told.
UNKNOWN = (float("nan"), float("nan"), float("nan"))
Array = npt.NDArray[np.float64]


def arrival_points(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and rate at which requests really came: `arm, strategy, rate_rps, load, n,
    p50_s, p95_s` (not-a-number of fewer than 100), `queue_time_s` (the median of what requests
    waited), `served_rps`, `capacity_rps` (what the arm serves without a pause between requests),
    and all `latencies`. First requests and cases that failed are left out, and those of older runs
    that do not say when requests came."""
    rows = []
    for case_id, group in _of(trials, "load_sweep").groupby("case_id", sort=False):
        case = cases[cases["case_id"] == case_id].iloc[-1]
        latencies = _later(group)["latency_s"].dropna().to_numpy(dtype=float)
        if case["status"] == "ok" and len(latencies) and pd.notna(case.get("arrival_rate_rps")):
            rows.append(
                {
                    "arm": f"{case['strategy']}/{case['variant']}",
                    **case[["strategy", "load"]],
                    "rate_rps": case["arrival_rate_rps"],
                    "n": len(latencies),
                    "p50_s": float(np.median(latencies)),
                    "p95_s": tail(latencies),
                    "queue_time_s": float(group["queue_time_s"].median()),
                    "served_rps": case["throughput_rps"],
                    "latencies": latencies,
                }
            )
    points = pd.DataFrame(rows)
    return points.assign(capacity_rps=_capacities(points, cases)) if rows else points


def _capacities(points: pd.DataFrame, cases: pd.DataFrame) -> pd.Series:
    """What each point's arm served in the race, a closed loop; without one, the most that it served
    at any rate."""
    race = cases[(cases["experiment"] == "strategy_comparison") & (cases["status"] == "ok")]
    served = numbers(race, "throughput_rps").groupby(race["strategy"] + "/" + race["variant"])
    most = points.groupby("arm")["served_rps"].transform("max").astype(float)
    return points["arm"].map(served.median()).astype(float).fillna(most)


def _of(trials: pd.DataFrame, experiment: str) -> pd.DataFrame:
    if trials.empty:
        return trials.reindex(columns=required_columns("trials"))
    return trials[trials["experiment"] == experiment]


def _later(trials: pd.DataFrame) -> pd.DataFrame:
    """Without first requests."""
    return trials[~trials["is_first_request"].astype(bool)]


def knees(points: pd.DataFrame) -> dict[str, float]:
    """Per arm the highest rate (requests/s), of those tried without a gap from the lowest, at
    which p95 is still within `KNEE_RATIO` times that at the lowest and which is below what the arm
    serves at most. Not-a-number where none is, and where there is no p95."""
    found = {}
    for arm, own in points.groupby("arm", sort=False) if len(points) else ():
        ranked = own.sort_values("rate_rps")
        within = ranked["p95_s"] <= KNEE_RATIO * ranked["p95_s"].iloc[0]
        held = ranked[(within & (ranked["rate_rps"] < ranked["capacity_rps"])).cummin()]
        found[str(arm)] = float(held["rate_rps"].max())
    return found


def mean_latency_s(service_s: Any, variation: Any, interval_s: Any) -> Any:
    """Mean time in the system of Poisson arrivals, on average every `interval_s`, at one server;
    numbers or arrays of them.

    `variation` is the squared coefficient of variation of the service time. Infinite where requests
    come faster than they can be served. Source: the Pollaczek-Khinchine formula for M/G/1 queues,
    W = s + l s^2 (1 + c^2) / 2 (1 - l s) with the rate l = 1 / interval.
    """
    load = np.asarray(service_s / interval_s, dtype=float)
    idle = np.where(load < 1, 1 - load, np.nan)
    waiting = load * service_s * (1 + variation) / (2 * idle)
    return np.where(load < 1, service_s + waiting, np.inf)


def service_times(trials: pd.DataFrame) -> pd.DataFrame:
    """What requests of each length take by themselves: one row per arm and `audio_s` with `n` and
    all of them, `seconds`."""
    own = _later(_of(trials, "service_times"))
    if own.empty:
        return pd.DataFrame(columns=["arm", "audio_s", "n", "seconds"])
    own = own.astype({"audio_s": float, "latency_s": float})
    arms = own["strategy"] + "/" + own["variant"]
    times = own.groupby([arms.rename("arm"), "audio_s"], sort=False)["latency_s"]
    return pd.DataFrame({"n": times.size(), "seconds": times.agg(np.asarray)}).reset_index()


def break_even(services: pd.DataFrame, *, control: str) -> pd.DataFrame:
    """Where an arm's mean latency is below that of the control: one row per other arm, audio length
    and mean interval between arrivals, with `ratio` (arm over control; infinite where only the arm
    is overrun, 0 where only the control is) and its 95 % interval, `low` to `high`. All three are
    not-a-number where both are overrun, where the interval does not say who is, and where fewer
    than five requests were timed.

    Derived from measured service times by `mean_latency_s`, not measured; the interval draws those
    times again.
    """
    base = services[services["arm"] == control].drop(columns="arm")
    others = services[services["arm"] != control]
    pairs = others.merge(base, on="audio_s", suffixes=("", "_control"))
    columns = ["arm", "audio_s", "interval_s", "ratio", "low", "high"]
    if pairs.empty:
        return pd.DataFrame(columns=columns)
    means = services["seconds"].map(np.mean)
    intervals = np.geomspace(means.min(), 30 * means.max(), 8)
    rows = []
    for _, pair in pairs.iterrows():
        enough = min(pair["n"], pair["n_control"]) >= LEAST_READINGS
        drawn = _drawn_ratios(pair["seconds"], pair["seconds_control"], intervals)
        for interval_s, ratios in zip(intervals, drawn, strict=True):
            told = _interval(ratios) if enough else UNKNOWN
            rows.append((pair["arm"], pair["audio_s"], interval_s, *told))
    return pd.DataFrame(rows, columns=columns)


def _drawn_ratios(mine: Array, theirs: Array, intervals: Array) -> Array:
    """(intervals, 1 + resamples): one mean latency over the other at each interval, of the times
    themselves first and then of times drawn again."""
    rng = np.random.default_rng(0)
    latencies = []
    for seconds in (mine, theirs):
        again = seconds[rng.integers(0, len(seconds), (RESAMPLES, len(seconds)))]
        samples = np.vstack([seconds, again])
        mean = samples.mean(axis=1)
        variation = samples.var(axis=1) / mean**2
        latencies.append(mean_latency_s(mean, variation, intervals[:, None]))
    with np.errstate(invalid="ignore"):  # infinite over infinite: neither can serve
        return np.asarray(latencies[0] / latencies[1])


def _interval(ratios: Array) -> tuple[float, float, float]:
    """The first of these ratios, and what the others span; of the infinite, only where all are."""
    value, drawn = float(ratios[0]), ratios[1:]
    if np.isnan(drawn).any() or len({*np.isinf(ratios)}) > 1 or len({*(ratios == 0)}) > 1:
        return UNKNOWN
    if np.isinf(value):
        return value, value, value
    tail_share = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, (tail_share, 1 - tail_share))
    return value, float(low), float(high)
