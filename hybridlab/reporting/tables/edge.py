"""Tables of the edge: limits by bisection, the squeeze, the fallback chain."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.reporting import labels
from hybridlab.units import MIB


def least_rooms(probes: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Of every squeezed request the least room that it survived with: case_id, strategy, repeat,
    room_bytes."""
    columns = ["case_id", "strategy", "repeat", "room_bytes"]
    if probes.empty or "limit_kind" not in probes:
        return pd.DataFrame(columns=columns)
    squeezed = probes[(probes["limit_kind"] == "headroom") & probes["succeeded"].astype(bool)]
    least = squeezed.groupby(["case_id", "repeat"], sort=False, as_index=False)["value"].min()
    names = cases[["case_id", "strategy"]].drop_duplicates()
    rooms: pd.DataFrame = least.merge(names, on="case_id").rename(columns={"value": "room_bytes"})
    return rooms[columns]


def edge_table(cases: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """What was found: one row for each limit, strategy and step of the fallback chain."""
    rows: list[dict[str, Any]] = []
    edge = cases[(cases["experiment"] == "memory_limits") & (cases["status"] == "ok")]
    for _, case in edge.iterrows():
        own = probes[probes["case_id"] == case["case_id"]] if len(probes) else probes
        failures = own[~own["succeeded"].astype(bool)] if len(own) else own
        row = {
            "asked": labels.LIMITS.get(case["limit_kind"], case["limit_kind"]),
            "strategy": case["strategy"],
        }
        row |= {"found": _edge_words(case, cases, probes), "probes": len(own)}
        phases = failures["phase"].dropna().value_counts() if len(failures) else pd.Series()
        row["fails in"] = str(phases.index[0]) if len(phases) else labels.EMPTY
        rows.append(row)
    return pd.DataFrame(rows, columns=["asked", "strategy", "found", "probes", "fails in"])


def _edge_words(case: pd.Series, cases: pd.DataFrame, probes: pd.DataFrame) -> str:
    if case["limit_kind"] == "headroom":
        rooms = least_rooms(probes, cases)
        own = bootstrap_interval(rooms[rooms["case_id"] == case["case_id"]]["room_bytes"] / MIB)
        return f"{labels.interval(own)} MiB above the resident pair"
    if case["limit_kind"] == "fallback":
        count = int(case["fallbacks"])
        return f"{case['served_by_model']} after {count} {'step' if count == 1 else 'steps'} down"
    value, unit = case["limit_found"], " s" if case["limit_kind"] == "audio_s" else ""
    if not value:
        return "not even the smallest"
    return f"{value:g}{unit}" + ("" if case["limit_hit"] else " and more: nothing failed")
