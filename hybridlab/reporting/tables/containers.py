"""Table of arms whose models are servers: what HTTP, a second context and a gateway add."""

from __future__ import annotations

import math

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.reporting import labels
from hybridlab.reporting.rows import cases_of, race_trials
from hybridlab.units import MIB

ONE, TWO = "single-container", "separate-containers"


def containers_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race that was asked over HTTP; empty where there was none.

    'of latency': HTTP and the gateway together. 'beside weights': what the servers hold idle
    that is no weight (interpreters, libraries and decoders, on a GPU the contexts); 'second
    context': of that, what two servers hold beyond one, known only where one raced too.
    """
    raced = cases_of(cases, "strategy_comparison")
    raced = raced[(numbers(raced, "servers") > 0) & (raced["status"] == "ok")]
    held = numbers(raced, "server_overhead_bytes").groupby(raced["variant"]).median()
    measured = race_trials(trials)
    rows = []
    for (strategy, variant), own in raced.groupby(["strategy", "variant"], sort=False):
        served = measured[measured["case_id"].isin(own["case_id"])]
        http_s, gateway_s = numbers(served, "http_overhead_s"), numbers(served, "gateway_s")
        added = (http_s + gateway_s.fillna(0)) / served["latency_s"]
        second = held[str(variant)] - held.get(ONE, math.nan) if variant == TWO else math.nan
        rows.append(
            {
                "strategy": labels.arm_name(str(strategy), str(variant)),
                "n": len(served),
                "median s": labels.interval(bootstrap_interval(served["latency_s"])),
                "HTTP ms": labels.interval(bootstrap_interval(1000 * http_s)),
                "gateway ms": labels.interval(bootstrap_interval(1000 * gateway_s.dropna())),
                "of latency": labels.percent(added.median()),
                "servers": int(own["servers"].iloc[0]),
                "beside weights MiB": _mib(held[str(variant)]),
                "second context MiB": _mib(second),
                "gateway MiB": _mib(numbers(own, "gateway_bytes").median()),
            }
        )
    return pd.DataFrame(rows)


def _mib(n_bytes: float) -> str:
    return labels.EMPTY if math.isnan(n_bytes) else f"{n_bytes / MIB:,.0f}"
