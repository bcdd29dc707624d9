"""Table of arms whose tenants are servers: what HTTP, a second context and a gateway add."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hybridlab.analysis.standings import numbers
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.reporting.tables.race import race_trials
from hybridlab.reporting.tables.words import EMPTY, interval, number_or_none, percent
from hybridlab.units import MIB

ONE, TWO = "single-container", "separate-containers"


@dataclass(frozen=True)
class Held:
    """Median bytes of an arm's servers at rest, None where there is no reading: one server's
    interpreters, libraries and decoders (on a GPU its contexts), what a second one adds, and the
    gateway's processes."""

    first: float | None
    second: float | None
    gateway: float | None

    @property
    def servers(self) -> float | None:
        return None if self.first is None else self.first + (self.second or 0.0)


def container_cases(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases of a race that were asked over HTTP and served."""
    served = (cases["experiment"] == "race") & (numbers(cases, "servers") > 0)
    return cases[served & (cases["status"] == "ok")]


def held_by_servers(cases: pd.DataFrame) -> dict[str, Held]:
    """By variant. What a second server adds is what two hold beyond one, and so is only known where
    one raced too."""
    raced = container_cases(cases)
    found: dict[str, Held] = {}
    medians = {
        str(variant): number_or_none(numbers(own, "server_overhead_bytes").median())
        for variant, own in raced.groupby("variant", sort=False)
    }
    for variant, own in raced.groupby("variant", sort=False):
        all_bytes, one = medians[str(variant)], medians.get(ONE)
        known = variant == TWO and all_bytes is not None and one is not None
        gateway = number_or_none(numbers(own, "gateway_bytes").median())
        second = all_bytes - one if known and all_bytes is not None and one is not None else None
        found[str(variant)] = Held(one if known else all_bytes, second, gateway)
    return found


def containers_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race that was asked over HTTP; empty where there was none.

    'of latency': HTTP and the gateway together. 'beside weights': what the servers hold at rest
    that is no weight; 'second context': of that, what two servers hold beyond one.
    """
    raced = container_cases(cases)
    measured = race_trials(trials)
    held = held_by_servers(cases)
    rows = []
    for (strategy, variant), own in raced.groupby(["strategy", "variant"], sort=False):
        served = measured[measured["case_id"].isin(own["case_id"])]
        http_s, gateway_s = numbers(served, "http_overhead_s"), numbers(served, "gateway_s")
        added = (http_s + gateway_s.fillna(0)) / served["latency_s"]
        known = held[str(variant)]
        rows.append(
            {
                "strategy": f"{strategy} / {variant}",
                "n": len(served),
                "median s": interval(bootstrap_interval(served["latency_s"])),
                "HTTP ms": interval(bootstrap_interval(1000 * http_s)),
                "gateway ms": interval(bootstrap_interval(1000 * gateway_s.dropna())),
                "of latency": percent(number_or_none(added.median())),
                "servers": int(own["servers"].iloc[0]),
                "beside weights MiB": _mib(known.servers),
                "second context MiB": _mib(known.second),
                "gateway MiB": _mib(known.gateway),
            }
        )
    return pd.DataFrame(rows)


def _mib(n_bytes: float | None) -> str:
    return EMPTY if n_bytes is None else f"{n_bytes / MIB:,.0f}"
