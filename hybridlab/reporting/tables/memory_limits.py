"""Tables of memory limits: found by bisection, the least headroom, the fallback chain."""

from __future__ import annotations

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.rows import cases_of, complete_tables, measured
from hybridlab.units import MIB, counted


@complete_tables
def least_headrooms(probes: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Of every squeezed request the least headroom that it survived with: case_id, strategy,
    repeat, headroom_bytes."""
    squeezed = probes[(probes["limit_kind"] == "headroom") & probes["succeeded"].astype(bool)]
    least = squeezed.groupby(["case_id", "repeat"], sort=False)["value"].min()
    found = least.rename("headroom_bytes").reset_index()
    return found.merge(cases[["case_id", "strategy"]].drop_duplicates(), on="case_id")


@complete_tables
def memory_limits_table(cases: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """What was found: one row for each limit, strategy and step of the fallback chain."""
    headrooms = least_headrooms(probes, cases)
    rows = []
    for _, case in measured(cases_of(cases, "memory_limits")).iterrows():
        own = probes[probes["case_id"] == case["case_id"]]
        phases = own[~own["succeeded"].astype(bool)]["phase"].dropna().value_counts()
        found = headrooms[headrooms["case_id"] == case["case_id"]]["headroom_bytes"]
        rows.append(
            {
                "asked": labels.LIMITS.get(case["limit_kind"], case["limit_kind"]),
                "strategy": case["strategy"],
                "found": _found_words(case, found),
                "probes": len(own),
                "fails in": str(phases.index[0]) if len(phases) else labels.EMPTY,
            }
        )
    return pd.DataFrame(rows, columns=["asked", "strategy", "found", "probes", "fails in"])


def _found_words(case: pd.Series, headrooms: pd.Series[float]) -> str:
    if case["limit_kind"] == "headroom":
        least = labels.number((headrooms / MIB).median())
        return f"{least} MiB above the resident pair"
    if case["limit_kind"] == "fallback":
        steps = counted(int(case["fallbacks"]), "step")
        return f"{case['served_by_model']} after {steps} down"
    value, unit = case["limit_found"], " s" if case["limit_kind"] == "audio_s" else ""
    if not value:
        return "not even the smallest"
    return f"{value:g}{unit}" + ("" if case["limit_hit"] else " and more: nothing failed")


@complete_tables
def request_sizes(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that served a request of a chosen size, smallest first: `scaling_kind, size` (s of
    audio, or requests in a batch) and the bytes that were measured and predicted."""
    tried = cases[cases["scaling_kind"].isin(["audio_s", "batch"])]
    known = ("request_peak_bytes", "predicted_bytes")
    sizes = {"size": numbers(tried, "scaling_value")} | {
        name: numbers(tried, name) for name in known
    }
    return tried.assign(**sizes).dropna(subset=["size"]).sort_values("size")
