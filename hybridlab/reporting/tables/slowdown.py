"""How much each tenant is slowed by sharing: its seconds at work in a race over those alone."""

from __future__ import annotations

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.reporting import labels
from hybridlab.reporting.tables.race import no_times
from hybridlab.results.reader import has_clock

#: Phases in which a tenant serves; what a swap takes stands in the table of swaps.
AT_WORK = ("prepare", "encode", "prefill", "decode")
COLUMNS = ["strategy", "role", "n", "at work s", "times as long as alone"]


def slowdown_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and tenant: median seconds at work for a request, and how many times as long
    as alone for the same request.

    First requests are left out, and cases in which a smaller Whisper served. Solo arms have no row:
    there Voxtral does both jobs. Where several requests share one call (`batched`) its seconds are
    shared out evenly and there is no interval.
    """
    if not has_clock(cases):
        return no_times()
    alone = _without_first(_at_work(spans, cases, "reference"))
    race = _at_work(spans, cases[~(numbers(cases, "fallbacks") > 0)], "strategy_comparison")
    usual = alone.groupby(["asr_backend", "role", "request_id"])["seconds"].median()
    rows = []
    for (strategy, variant, tenant), own in race[race["strategy"] != "solo"].groupby(
        ["strategy", "variant", "role"], sort=False
    ):
        served = int(cases.loc[cases["case_id"].isin(own["case_id"]), "n_trials"].sum())
        seconds, ratio = _shared(own, usual, served) if len(own) < served else _each(own, usual)
        rows.append((labels.arm_name(str(strategy), str(variant)), tenant, served, seconds, ratio))
    return pd.DataFrame(rows, columns=COLUMNS)


def _each(own: pd.DataFrame, usual: pd.Series) -> tuple[str, str]:
    """Median and interval of seconds, and of their ratios request by request."""
    keys = own.set_index(["asr_backend", "role", "request_id"]).index
    ratios = own["seconds"] / usual.reindex(keys).to_numpy()
    seconds, times = (bootstrap_interval(values) for values in (own["seconds"], ratios))
    return labels.interval(seconds), labels.interval(times)


def _shared(own: pd.DataFrame, usual: pd.Series, served: int) -> tuple[str, str]:
    """Mean seconds of a request that shares its calls with others, and their ratio."""
    expected = usual.xs(own["role"].iloc[0], level="role").mean()
    each = own["seconds"].sum() / served
    return labels.number(each), labels.number(each / expected)


def _at_work(spans: pd.DataFrame, cases: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Seconds at work by case, request and tenant."""
    names = ["case_id", "strategy", "variant", "asr_backend"]
    if spans.empty or cases.empty:
        return pd.DataFrame(columns=[*names, "request_id", "role", "seconds"])
    chosen = cases[(cases["experiment"].astype(str).str.startswith(experiment))]
    good = chosen[chosen["status"].isin(["ok", "invalid"] if experiment == "reference" else ["ok"])]
    own = spans[spans["phase"].isin(AT_WORK) & spans["request_id"].notna()]
    own = own[~own["request_id"].astype(str).str.endswith("-first")]
    own = own.assign(seconds=own["end_s"] - own["start_s"]).merge(good[names], on="case_id")
    return own.groupby([*names, "request_id", "role"], sort=False, dropna=False, as_index=False)[
        ["seconds"]
    ].sum()


def _without_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the first request of each tenant alone, which pays for lazy initialisation."""
    later: pd.DataFrame = rows[rows.groupby(["case_id", "role"]).cumcount() > 0]
    return later
