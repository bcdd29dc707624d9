"""A tenant's seconds in a race against its seconds alone, by known answers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from hybridlab.reporting import tables


def span(case: str, request: str, tenant: str, phase: str, seconds: float) -> dict[str, Any]:
    return {
        "case_id": case,
        "request_id": request,
        "role": tenant,
        "phase": phase,
        "start_s": 0.0,
        "end_s": seconds,
    }


def case(case_id: str, experiment: str, strategy: str, variant: str, n: int) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "experiment": experiment,
        "strategy": strategy,
        "variant": variant,
        "asr_backend": "openai-whisper",
        "status": "ok",
        "n_trials": n,
    }


def table(race: list[dict[str, Any]], *, variant: str, n: int) -> pd.DataFrame:
    alone = [
        span("reference", f"clip-{i}", "asr", "decode", 9.0 if i == 0 else 1.0) for i in range(4)
    ]
    cases = [
        case("reference", "reference", "reference", "both", 4),
        case("strategy_comparison", "strategy_comparison", "s", variant, n),
    ]
    return tables.slowdown_table(pd.DataFrame(alone + race), pd.DataFrame(cases))


def test_each_request_is_held_against_itself_alone() -> None:
    race = [
        span("strategy_comparison", f"clip-{i}", "asr", phase, seconds)
        for i in range(4)
        for phase, seconds in (("encode", 1.0), ("decode", 0.5), ("copy-in", 7.0))
    ]
    race.append(span("strategy_comparison", "clip-0-first", "asr", "decode", 99.0))
    row = table(race, variant="threads", n=4).iloc[0]
    # alone, the first request is cold: 9 s of it are no measure; copying in is not work
    assert row["at work s"].startswith("1.5 (") and row["n"] == 4
    assert row["times as long as alone"].startswith("1.5 (")


def test_requests_of_a_batch_share_their_call() -> None:
    race = [span("strategy_comparison", "clip-0", "asr", "decode", 2.0)]
    row = table(race, variant="batched", n=4).iloc[0]
    assert (row["at work s"], row["times as long as alone"]) == ("0.5", "0.5")


@pytest.mark.parametrize("rows", [pd.DataFrame(), pd.DataFrame({"experiment": []})])
def test_a_run_without_races_has_an_empty_table(rows: pd.DataFrame) -> None:
    assert tables.slowdown_table(pd.DataFrame(), rows).empty


def test_a_case_that_stepped_down_is_no_measure_of_sharing() -> None:
    spans = pd.DataFrame([span("strategy_comparison", "clip-1", "asr", "decode", 1.0)])
    cases = pd.DataFrame(
        [{**case("strategy_comparison", "strategy_comparison", "s", "threads", 1), "fallbacks": 1}]
    )
    assert tables.slowdown_table(spans, cases).empty
    assert len(tables.slowdown_table(spans, cases.assign(fallbacks=0))) == 1
