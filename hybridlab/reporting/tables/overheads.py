"""What sharing adds: how much each model is slowed by the other, and what HTTP, a second context
and a gateway take where the models are servers."""

from __future__ import annotations

import math

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.rows import (
    RACE,
    case_interval,
    cases_of,
    complete_tables,
    measured,
    race_trials,
    timed_table,
)
from hybridlab.units import MIB

#: Phases in which a model serves; what a swap takes stands in the table of swaps.
AT_WORK = ("prepare", "encode", "prefill", "decode")
COLUMNS = ["strategy", "model", "n", "at work s", "times as long as alone"]


@timed_table
def slowdown_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and model: median seconds at work for a request, and how many times as long
    as alone for the same request; n counts cases.

    First requests are left out. Solo arms have no row:
    there Voxtral does both jobs. Where several requests share one call (`batched`) its seconds are
    shared out evenly and there is no interval.
    """
    alone = _without_first(_at_work(spans, cases, "reference"))
    race = _at_work(spans, cases, RACE)
    usual = alone.groupby(["asr_backend", "role", "request_id"])["seconds"].median()
    rows = []
    for (strategy, variant, role), own in race[race["strategy"] != "solo"].groupby(
        ["strategy", "variant", "role"], sort=False
    ):
        served = int(cases.loc[cases["case_id"].isin(own["case_id"]), "n_trials"].sum())
        seconds, ratio = _shared(own, usual, served) if len(own) < served else _each(own, usual)
        name, n = labels.arm_name(str(strategy), str(variant)), own["case_id"].nunique()
        rows.append((name, labels.role_name(str(role)), n, seconds, ratio))
    return pd.DataFrame(rows, columns=COLUMNS)


def _each(own: pd.DataFrame, usual: pd.Series) -> tuple[str, str]:
    """Median and interval of seconds, and of their ratios request by request."""
    keys = own.set_index(["asr_backend", "role", "request_id"]).index
    ratios = own["seconds"] / usual.reindex(keys).to_numpy()
    seconds, times = (case_interval(own, values) for values in (own["seconds"], ratios))
    return labels.interval(seconds), labels.interval(times)


def _shared(own: pd.DataFrame, usual: pd.Series, served: int) -> tuple[str, str]:
    """Mean seconds of a request that shares its calls with others, and their ratio."""
    expected = usual.xs(own["role"].iloc[0], level="role").mean()
    each = own["seconds"].sum() / served
    return labels.number(each), labels.number(each / expected)


def _at_work(spans: pd.DataFrame, cases: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Seconds at work by case, request and model."""
    names = ["case_id", "strategy", "variant", "asr_backend"]
    chosen = cases[(cases["experiment"].astype(str).str.startswith(experiment))]
    good = chosen[chosen["status"].isin(["ok", "invalid"] if experiment == "reference" else ["ok"])]
    own = spans[spans["phase"].isin(AT_WORK) & spans["request_id"].notna()]
    own = own[~own["request_id"].astype(str).str.endswith("-first")]
    own = own.assign(seconds=own["end_s"] - own["start_s"]).merge(good[names], on="case_id")
    return own.groupby([*names, "request_id", "role"], sort=False, dropna=False, as_index=False)[
        ["seconds"]
    ].sum()


def _without_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the first request of each model alone, which pays for lazy initialisation."""
    later: pd.DataFrame = rows[rows.groupby(["case_id", "role"]).cumcount() > 0]
    return later


# --------------------------------------------------------------------------- models as servers

ONE, TWO = "single-container", "separate-containers"


@complete_tables
def containers_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race that was asked over HTTP; empty where there was none.

    'of latency': HTTP and the gateway together. 'beside weights': what the servers hold idle
    that is no weight (interpreters, libraries and decoders, on a GPU the contexts); 'second
    context': of that, what two servers hold beyond one, known only where one raced too.
    """
    raced = measured(cases_of(cases, RACE))
    raced = raced[numbers(raced, "servers") > 0]
    held = numbers(raced, "server_overhead_bytes").groupby(raced["variant"]).median()
    requests = race_trials(trials)
    rows = []
    for (strategy, variant), own in raced.groupby(["strategy", "variant"], sort=False):
        served = requests[requests["case_id"].isin(own["case_id"])]
        http_s, gateway_s = numbers(served, "http_overhead_s"), numbers(served, "gateway_s")
        added = (http_s + gateway_s.fillna(0)) / served["latency_s"]
        second = held[str(variant)] - held.get(ONE, math.nan) if variant == TWO else math.nan
        rows.append(
            {
                "strategy": labels.arm_name(str(strategy), str(variant)),
                "n": len(own),
                "median s": labels.interval(case_interval(served, served["latency_s"])),
                "HTTP ms": labels.interval(case_interval(served, 1000 * http_s)),
                "gateway ms": labels.interval(case_interval(served, 1000 * gateway_s)),
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
