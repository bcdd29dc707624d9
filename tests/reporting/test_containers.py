"""The table of what HTTP and a second context add, from rows whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from hybridlab.reporting import key_findings
from hybridlab.reporting.tables import containers_table
from hybridlab.units import MIB


def case(
    variant: str, servers: int, overhead_mib: float, gateway_mib: float | None = None
) -> dict[str, object]:
    return {
        "case_id": variant,
        "experiment": "strategy_comparison",
        "strategy": "parallel",
        "variant": variant,
        "servers": servers,
        "server_overhead_bytes": overhead_mib * MIB,
        "gateway_bytes": None if gateway_mib is None else gateway_mib * MIB,
        "status": "ok",
    }


def trial(
    variant: str, latency_s: float, http_s: float, gateway_s: float | None = None
) -> dict[str, object]:
    return {
        "case_id": variant,
        "experiment": "strategy_comparison",
        "strategy": "parallel",
        "variant": variant,
        "is_first_request": False,
        "latency_s": latency_s,
        "http_overhead_s": http_s,
        "gateway_s": gateway_s,
    }


CASES = pd.DataFrame([case("single-container", 1, 500), case("separate-containers", 2, 900, 50)])


def test_http_the_second_context_and_the_gateway_are_told_apart() -> None:
    trials = pd.DataFrame(
        [trial("single-container", 0.1, 0.01)] * 3
        + [trial("separate-containers", 0.2, 0.05, 0.01)] * 3
    )
    one, two = containers_table(trials, CASES).to_dict("records")
    assert (one["servers"], one["beside weights MiB"], one["second context MiB"]) == (1, "500", "–")
    assert (two["servers"], two["beside weights MiB"], two["second context MiB"]) == (
        2,
        "900",
        "400",
    )
    assert one["HTTP ms"].startswith("10")
    assert (one["of latency"], two["of latency"]) == ("10.0 %", "30.0 %")
    assert (one["gateway ms"], one["gateway MiB"]) == ("–", "–")
    assert two["gateway ms"].startswith("10 (")
    assert two["gateway MiB"] == "50"


def test_what_was_learnt_names_each_part() -> None:
    one = [trial("single-container", 0.1, 0.01)]
    two = [trial("separate-containers", 0.2, 0.05, 0.01)]
    assert key_findings.containers(pd.DataFrame(one + two), CASES) == [
        "parallel/single-container: HTTP adds 10 ms, 10.0 % of a request; 1 server holds 500 MiB "
        "beside weights.",
        "parallel/separate-containers: HTTP adds 50 ms and a gateway 10 ms, 30.0 % of a request; "
        "2 servers hold 900 MiB beside weights, 400 MiB of it more than one does, the gateway "
        "50 MiB.",
    ]


@pytest.mark.parametrize(
    ("cases", "held"),
    [
        (CASES, [("500", "–"), ("900", "400")]),
        (CASES.iloc[1:], [("900", "–")]),  # how much one server holds is not known
        (CASES.assign(server_overhead_bytes=None), [("–", "–"), ("–", "–")]),
    ],
)
def test_a_second_context_is_known_beside_one_alone(
    cases: pd.DataFrame, held: list[tuple[str, str]]
) -> None:
    trials = pd.DataFrame([trial(variant, 0.1, 0.01) for variant in cases["variant"]])
    table = containers_table(trials, cases)
    columns = (table["beside weights MiB"], table["second context MiB"])
    assert list(zip(*columns, strict=True)) == held


def test_a_race_without_servers_has_no_such_table() -> None:
    cases = pd.DataFrame([case("threads", 0, 0)]).drop(columns=["servers"])
    assert containers_table(pd.DataFrame([trial("threads", 0.1, 0.0)]), cases).empty
