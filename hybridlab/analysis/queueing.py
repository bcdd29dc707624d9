"""What waiting adds to latency: measured where requests come at their own times, and predicted from
service times alone. No torch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hybridlab.results.schema import required_columns

#: The knee is the last rate whose p95 is within so many times that at the lowest rate.
KNEE_RATIO = 2.0


def arrival_points(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and offered rate: `arm, strategy, rate_rps, load, n, p50_s, p95_s,
    queue_time_s` (the median of what requests waited), `served_rps`, and all `latencies`. First
    requests and cases that failed are left out."""
    rows = []
    for case_id, group in _of(trials, "load_sweep").groupby("case_id", sort=False):
        case = cases[cases["case_id"] == case_id].iloc[-1]
        latencies = _later(group)["latency_s"].dropna().to_numpy(dtype=float)
        if case["status"] == "ok" and len(latencies):
            p50_s, p95_s = np.quantile(latencies, [0.5, 0.95])
            rows.append(
                {
                    "arm": f"{case['strategy']}/{case['variant']}",
                    **case[["strategy", "rate_rps", "load"]],
                    "n": len(latencies),
                    "p50_s": float(p50_s),
                    "p95_s": float(p95_s),
                    "queue_time_s": float(group["queue_time_s"].median()),
                    "served_rps": case["throughput_rps"],
                    "latencies": latencies,
                }
            )
    return pd.DataFrame(rows)


def _of(trials: pd.DataFrame, experiment: str) -> pd.DataFrame:
    if trials.empty:
        return trials.reindex(columns=required_columns("trials"))
    return trials[trials["experiment"] == experiment]


def _later(trials: pd.DataFrame) -> pd.DataFrame:
    """Without first requests."""
    return trials[~trials["is_first_request"].astype(bool)]


def knees(points: pd.DataFrame) -> dict[str, float]:
    """Per arm the highest rate (requests/s), of those tried without a gap from the lowest, at
    which p95 is still within `KNEE_RATIO` times that at the lowest."""
    found = {}
    for arm, own in points.groupby("arm", sort=False) if len(points) else ():
        ranked = own.sort_values("rate_rps")
        within = ranked["p95_s"] <= KNEE_RATIO * ranked["p95_s"].iloc[0]
        held = ranked[within.cummin()]
        found[str(arm)] = float(held["rate_rps"].max())
    return found


def mean_latency_s(service_s: float, variation: float, interval_s: float) -> float:
    """Mean time in the system of Poisson arrivals, on average every `interval_s`, at one server.

    `variation` is the squared coefficient of variation of the service time. Infinite where requests
    come faster than they can be served. Source: the Pollaczek-Khinchine formula for M/G/1 queues,
    W = s + l s^2 (1 + c^2) / 2 (1 - l s) with the rate l = 1 / interval.
    """
    load = service_s / interval_s
    if load >= 1:
        return float("inf")
    return service_s + load * service_s * (1 + variation) / (2 * (1 - load))


def service_times(trials: pd.DataFrame) -> pd.DataFrame:
    """What requests of each length take by themselves: one row per arm and `audio_s` with `n`,
    `service_s` (mean) and `variation` (squared coefficient of variation)."""
    own = _later(_of(trials, "service_times"))
    if own.empty:
        return pd.DataFrame(columns=["arm", "audio_s", "n", "service_s", "variation"])
    own = own.astype({"audio_s": float, "latency_s": float})
    arms = own["strategy"] + "/" + own["variant"]
    times = own.groupby([arms.rename("arm"), "audio_s"], sort=False)["latency_s"]
    mean = times.mean()
    found = pd.DataFrame(
        {"n": times.size(), "service_s": mean, "variation": times.var(ddof=0) / mean**2}
    )
    return found.reset_index()


def break_even(services: pd.DataFrame, *, control: str) -> pd.DataFrame:
    """Where an arm's mean latency is below that of the control: one row per other arm, audio length
    and mean interval between arrivals, with `ratio` (arm over control; infinite where only the arm
    is overrun, 0 where only the control is, NaN where both are).

    Derived from measured service times by `mean_latency_s`, not measured.
    """
    base = services[services["arm"] == control].drop(columns="arm")
    others = services[services["arm"] != control]
    pairs = others.merge(base, on="audio_s", suffixes=("", "_control"))
    if pairs.empty:
        return pd.DataFrame(columns=["arm", "audio_s", "interval_s", "ratio"])
    lowest, highest = services["service_s"].min(), services["service_s"].max()
    grid = pd.DataFrame({"interval_s": np.geomspace(lowest, 30 * highest, 8)})
    cells = pairs.merge(grid, how="cross")
    mine, theirs = (
        [mean_latency_s(*cell) for cell in cells[[*names, "interval_s"]].to_numpy(dtype=float)]
        for names in (("service_s", "variation"), ("service_s_control", "variation_control"))
    )
    ratios = [_ratio(one, other) for one, other in zip(mine, theirs, strict=True)]
    return cells[["arm", "audio_s", "interval_s"]].assign(ratio=ratios)


def _ratio(mine: float, theirs: float) -> float:
    if np.isinf(theirs):
        return float("nan") if np.isinf(mine) else 0.0
    return mine / theirs
