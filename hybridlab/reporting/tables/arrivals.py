"""Table of requests that come at their own times: how latency grows with the rate."""

from __future__ import annotations

import pandas as pd

from hybridlab.analysis.queueing import arrival_points, knees
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.reporting import labels
from hybridlab.reporting.tables.race import no_times
from hybridlab.results.reader import has_clock


def arrivals_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and offered rate, and whether it lies before the knee."""
    if not has_clock(cases):
        return no_times()
    points = arrival_points(trials, cases)
    if points.empty:
        return pd.DataFrame(columns=["strategy", "rate /s", "n", "median s", "p95 s", "wait s"])
    held = knees(points)
    return pd.DataFrame(
        [
            {
                "strategy": row["arm"],
                "rate /s": labels.number(row["rate_rps"]),
                "of sequential's": f"{row['load']:.0%}",
                "n": row["n"],
                "median s": labels.interval(bootstrap_interval(row["latencies"])),
                "p95 s": labels.number(row["p95_s"]),
                "wait s": labels.number(row["queue_time_s"]),
                "served /s": labels.number(row["served_rps"]),
                "before the knee": "yes" if row["rate_rps"] <= held[row["arm"]] else "no",
            }
            for _, row in points.sort_values(["arm", "rate_rps"]).iterrows()
        ]
    )
