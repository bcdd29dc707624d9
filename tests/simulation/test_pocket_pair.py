"""What the pocket pair says under every way of sharing a simulated card. Cases run in processes
that have a card, the tests in one without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab import catalog
from hybridlab.analysis import memory_growth
from hybridlab.config.params import LimitsParams, ParallelParams, SequentialParams, SwappingParams
from hybridlab.experiments.plans import interference, load_sweep, soak, strategy_comparison
from hybridlab.reporting import key_findings
from tests.simulation.conftest import has_no_times, open_session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("lib", "case_server")]

IN_TWO_PROCESSES = ("processes", "processes-mps", "single-container", "separate-containers")
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "batched": {"batch": 2},
    "asyncio": {"max_in_flight": 2},
}


@pytest.fixture(scope="module")
def said_on_the_cpu(case_server: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each model of the pocket pair says by itself, token by token."""
    session = open_session(tmp_path_factory.mktemp("cpu"), SequentialParams, device="cpu")
    (row,) = strategy_comparison.run(session, [], rounds=0)
    assert row["status"] in ("ok", "invalid"), row["reason"]
    return session.part.folder / "texts-alone-openai-whisper.json"


@pytest.mark.parametrize("strategy", catalog.STRATEGIES)
def test_every_way_of_sharing_says_what_the_cpu_says(
    strategy: str, said_on_the_cpu: Path, tmp_path: Path
) -> None:
    session = open_session(tmp_path, ParallelParams)
    for variant in catalog.strategy(strategy).variants:
        arm = strategy_comparison.Arm(strategy, variant, OPTIONS.get(variant, {}))
        options = {"expected_texts": str(said_on_the_cpu)}
        row = session.runner.run(
            strategy_comparison.arm_case(session, "strategy_comparison", arm, options=options)
        )
        if variant == "ctranslate2":  # it brings a CUDA of its own, which no stand-in serves
            assert row["status"] == "skipped"
            assert "faster-whisper cannot compute" in row["reason"]
            continue
        assert row["status"] == "ok", f"{variant}: {row['reason']}"
        trials = session.table("trials")
        own = trials[trials["case_id"] == row["case_id"]]
        # a Whisper on the CPU has that CPU's rounding: its transcripts are held against nobody's
        later = own[~own["is_first_request"].astype(bool)]
        wanted = {None if variant == "whisper-on-cpu" else True}
        assert {
            None if pd.isna(p) else bool(p) for p in later["output_matches_reference"]
        } == wanted, variant
        assert own["transcript"].str.len().gt(0).all()
        assert own["answer"].str.len().gt(0).all()
        n_contexts = 2 if variant in IN_TWO_PROCESSES else 1  # and none of the case itself
        assert row["external_bytes"] == n_contexts * catalog.card("t4").context_bytes[1], variant
    assert has_no_times(session.table("trials"))
    assert has_no_times(session.table("cases"))
    assert session.table("spans").empty
    assert session.table("samples").empty
    session.close()


def test_what_is_about_time_alone_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(tmp_path, ParallelParams)
    swapping = SwappingParams.from_mapping({})
    assert isinstance(session.params, ParallelParams)
    assert load_sweep.measure(session, [strategy_comparison.CONTROL], session.params) == []
    assert load_sweep.lengths(session, [strategy_comparison.CONTROL], swapping) == []
    assert interference.measure(session, session.params) is None
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert all(line.endswith("(a simulated card has no clock)") for line in said)
    assert session.table("cases").empty


def test_no_remedy_lets_memory_creep(tmp_path: Path) -> None:
    session = open_session(
        tmp_path,
        LimitsParams,
        soak_strategies=["sequential"],
        max_new_tokens=3,
        soak_cycles=30,
        soak_requests=2,
        mitigate_every=10,
    )
    rows = soak.measure(session)
    assert {row["status"] for row in rows} == {"ok"}, [row["reason"] for row in rows]
    cycles = session.table("cycles")
    arms = {arm.mitigation: arm for arm in memory_growth.arms(cycles)}
    assert set(arms) == {"none", "empty-cache", "expandable-segments", "restart"}
    for mitigation, arm in arms.items():
        settled = arm.settled
        assert arm.occupied == "reserved_bytes"
        assert settled["allocated_bytes"].nunique() <= 2, mitigation  # one for each request
        for quantity in ("allocated_bytes", "reserved_bytes", "external_bytes"):
            half = len(settled) // 2
            before, after = settled[quantity].iloc[:half].max(), settled[quantity].iloc[half:].max()
            assert after <= before, (mitigation, quantity)
        assert settled["output_unchanged"].astype(bool).all(), mitigation
    assert has_no_times(cycles)
    told = key_findings.soak(cycles, session.table("cases"))
    assert not any(" h" in sentence or "days" in sentence for sentence in told), told
