"""The table of what HTTP and a second context add, from rows whose answer is known."""

from __future__ import annotations

import pandas as pd

from hybridlab.summary import containers_table
from hybridlab.units import MIB

REASON = "requests go straight to the server of each tenant"


def case(variant: str, servers: int, overhead_mib: float) -> dict[str, object]:
    return {
        "case_id": variant,
        "experiment": "race",
        "strategy": "parallel",
        "variant": variant,
        "servers": servers,
        "server_overhead_bytes": overhead_mib * MIB,
        "gateway_s": None,
        "gateway_reason": REASON,
    }


def trial(variant: str, latency_s: float, http_s: float) -> dict[str, object]:
    return {
        "case_id": variant,
        "experiment": "race",
        "strategy": "parallel",
        "variant": variant,
        "first": False,
        "latency_s": latency_s,
        "http_overhead_s": http_s,
    }


def test_http_and_the_second_context_are_told_apart() -> None:
    cases = pd.DataFrame([case("single-container", 1, 500), case("separate-containers", 2, 900)])
    trials = pd.DataFrame(
        [trial("single-container", 0.1, 0.01)] * 3 + [trial("separate-containers", 0.2, 0.05)] * 3
    )
    one, two = containers_table(trials, cases).to_dict("records")
    assert (one["servers"], one["beside weights MiB"], one["second context MiB"]) == (1, "500", "–")
    assert (two["servers"], two["beside weights MiB"], two["second context MiB"]) == (
        2,
        "900",
        "400",
    )
    assert one["HTTP ms"].startswith("10")
    assert (one["of latency"], two["of latency"]) == ("10.0 %", "25.0 %")
    assert two["gateway ms"] == f"– ({REASON})"


def test_a_race_without_servers_has_no_such_table() -> None:
    cases = pd.DataFrame([case("threads", 0, 0)]).drop(columns=["servers"])
    assert containers_table(pd.DataFrame([trial("threads", 0.1, 0.0)]), cases).empty
