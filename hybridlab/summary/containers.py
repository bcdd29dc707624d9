"""Table of arms whose tenants are servers: what HTTP, a second context and a gateway add."""

from __future__ import annotations

import pandas as pd

from hybridlab.standings import numbers
from hybridlab.stats import bootstrap_interval
from hybridlab.summary.race import race_trials
from hybridlab.summary.words import EMPTY, interval, number, number_or_none, percent
from hybridlab.units import MIB

ONE, TWO = "single-container", "separate-containers"


def containers_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race that was asked over HTTP; empty where there was none.

    'beside weights': what the servers hold when all is loaded and is no weight: interpreters,
    libraries, decoders. 'second context': what two servers hold of that beyond one.
    """
    raced = cases[(cases["experiment"] == "race") & (numbers(cases, "servers") > 0)]
    measured = race_trials(trials)
    held = {
        str(variant): number_or_none(numbers(own, "server_overhead_bytes").median())
        for variant, own in raced.groupby("variant", sort=False)
    }
    rows = []
    for (strategy, variant), own in raced.groupby(["strategy", "variant"], sort=False):
        served = measured[measured["case_id"].isin(own["case_id"])]
        added = numbers(served, "http_overhead_s")
        one, two = held.get(ONE), held.get(TWO)
        second = two - one if variant == TWO and one is not None and two is not None else None
        rows.append(
            {
                "strategy": f"{strategy} / {variant}",
                "n": len(served),
                "median s": interval(bootstrap_interval(served["latency_s"])),
                "HTTP ms": interval(bootstrap_interval(1000 * added)),
                "of latency": percent(number_or_none((added / served["latency_s"]).median())),
                "servers": int(own["servers"].iloc[0]),
                "beside weights MiB": _mib(held[str(variant)]),
                "second context MiB": _mib(second),
                "gateway ms": _gateway(own),
            }
        )
    return pd.DataFrame(rows)


def _mib(n_bytes: float | None) -> str:
    return EMPTY if n_bytes is None else f"{n_bytes / MIB:,.0f}"


def _gateway(cases: pd.DataFrame) -> str:
    seconds = number_or_none(numbers(cases, "gateway_s").median())
    return (
        f"{EMPTY} ({cases['gateway_reason'].iloc[0]})"
        if seconds is None
        else number(1000 * seconds)
    )
