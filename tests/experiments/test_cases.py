"""Cases in processes of their own: results, faults, resuming."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from hybridlab.analysis import queueing
from hybridlab.analysis.phase_slowdown import slowdowns
from hybridlab.config.params import (
    BesideParams,
    LimitsParams,
    ParallelParams,
    SequentialParams,
    SwappingParams,
)
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.experiments import case_worker
from hybridlab.experiments.plans import co_residency as beside
from hybridlab.experiments.plans import (
    interference,
    load_sweep,
    memory_limits,
    soak,
    strategy_comparison,
)
from hybridlab.experiments.plans.strategy_comparison import Arm
from hybridlab.reporting import figures, key_findings, tables
from hybridlab.results.schema import AT_ONCE
from tests.sessions import arms, assert_ok, closed, later, open_session, raced

pytestmark = pytest.mark.usefixtures("case_server")


@pytest.mark.slow
def test_a_race_of_all_strategies_passes_the_parity_gate(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    raced_arms = [
        *arms("solo/two-requests", "sequential/plain", "parallel/threads"),
        Arm("swapping", "reload-cached", {"swap": "both"}),
    ]
    assert_ok(strategy_comparison.run(session, raced_arms, rounds=1), 5)
    measured = raced(session)
    assert len(measured) == 2 * len(raced_arms)
    assert (measured["latency_s"] > 0).all()
    spans = session.table("spans")
    assert {"load", "encode", "prefill", "decode"} <= set(spans["phase"])
    assert (spans["end_s"] >= spans["start_s"]).all()
    session.close()
    assert json.loads((session.part.folder / "manifest.json").read_text())["status"] == "completed"


def test_over_as_many_rounds_as_arms_each_has_every_place_once() -> None:
    arms = [Arm("sequential", "plain"), Arm("parallel", "threads"), Arm("solo", "shared-prefix")]
    orders = [strategy_comparison.rotated(arms, number) for number in range(6)]
    assert orders[:3] == orders[3:]
    for place in range(3):
        assert all(arm in [order[place] for order in orders[:3]] for arm in arms)
    assert strategy_comparison.rotated([], 4) == []


def test_idle_is_read_when_all_is_warm(tmp_path: Path) -> None:
    """Under this variant the recogniser comes with the first request, and is in when the last has
    ended: idle has its weights, the pair as it was loaded has not."""
    session = open_session(tmp_path, trials=1)
    (arm,) = arms("swapping/single-buffer-overlapped")
    row = session.runner.run(strategy_comparison.arm_case(session, "strategy_comparison", arm))
    assert_ok([row], 1)
    ledgers = session.table("ledgers")
    own = {
        moment: closed(ledgers[ledgers["moment"] == moment], row["capacity_bytes"])
        for moment in ("load_peak", "idle")
    }
    assert "asr weights" not in own["load_peak"]
    assert own["idle"]["asr weights"] > 0
    assert own["idle"].sum() == row["idle_bytes"]
    assert row["idle_bytes"] >= row["loaded_bytes"] + own["idle"]["asr weights"] - 2**20


def test_requests_at_their_own_times_wait_for_each_other(tmp_path: Path) -> None:
    session = open_session(
        tmp_path, SwappingParams, arrival_requests=4, arrival_loads=[5.0], break_even_repeats=2
    )
    params = cast(SwappingParams, session.params)
    both = arms("sequential/plain", "pipelined/prefetch")
    assert load_sweep.measure(session, both, params) == []  # without a race there is no capacity
    strategy_comparison.run(session, both, rounds=1)
    rows = load_sweep.measure(session, both, params)
    assert_ok([*rows, *load_sweep.lengths(session, both, params)], 4)
    trials = session.table("trials")
    queued = later(trials[trials["experiment"] == "load_sweep"])
    assert len(queued) == 8
    assert (queued["latency_s"] >= queued["queue_time_s"]).all()
    for row in rows:  # four arrivals of a Poisson process are not on their long average
        assert row["arrival_rate_rps"] != pytest.approx(row["rate_rps"], rel=0.01)
        assert 0 < row["throughput_rps"] < row["arrival_rate_rps"]
    assert rows[0]["arrival_rate_rps"] == pytest.approx(rows[1]["arrival_rate_rps"])
    last = queued.groupby("case_id")["queue_time_s"].last()
    assert (last > 0.01).all()  # five times as many requests as can be served
    services = queueing.service_times(trials)
    assert set(services["audio_s"]) == {15.0, 30.0, 60.0}
    assert (services["n"] == 2).all()
    assert len(queueing.break_even(services, control="sequential/plain")) == 3 * 8


def test_every_two_parties_collide_and_nobody_is_left_at_work(tmp_path: Path) -> None:
    session = open_session(
        tmp_path, ParallelParams, interference_requests=1, interference_repeats=3
    )
    row = interference.measure(session, cast(ParallelParams, session.params))
    assert row is not None
    assert_ok([row], 1)
    spans = session.table("spans")
    labels = spans["request_id"].dropna().str.split(":").str[0]
    pairs = {"llm+asr", "llm+copy", "asr+copy"}
    assert pairs | {"reference"} <= set(labels)
    for pair in pairs:
        own = spans[spans["request_id"].astype(str).str.startswith(pair)]
        assert set(own["role"]) == set(pair.split("+"))
    found = slowdowns(spans)
    assert (found["low"] <= found["slowdown"]).all()
    assert (found["slowdown"] <= found["high"]).all()
    assert np.isfinite(found["high"].to_numpy(dtype=float)).all()
    assert figures.interference(spans).get_suptitle() or found.empty


def test_the_ledger_closes_at_every_moment(tmp_path: Path) -> None:
    """The case's rows sum to what it used, all rows to the device, and little is unattributed."""
    session = open_session(tmp_path)
    row = session.runner.run(session.case("co_residency", phases=True))
    ledgers = session.table("ledgers")
    phases = {"asr encode", "asr decode", "llm encode", "llm prefill"}
    assert phases <= set(ledgers["moment"])
    for moment, own in ledgers.groupby("moment"):
        used = closed(own, row["capacity_bytes"]).sum()
        if moment in ("load_peak", "idle"):
            assert used == row["idle_bytes" if moment == "idle" else f"{moment}_bytes"]
    requests = ledgers[(ledgers["owner"] == "request") & (ledgers["moment"] == "llm encode")]
    assert (requests["bytes"] > 0).all()
    assert (requests["predicted_bytes"] > 0).all()


@pytest.mark.parametrize("variant", ["threads", "processes"])
def test_models_that_work_at_once_are_told_apart(variant: str, tmp_path: Path) -> None:
    session = open_session(tmp_path, device="cpu")
    row = strategy_comparison.attribute_peak(session, Arm("parallel", variant))
    assert_ok([row], 1)
    ledgers = session.table("ledgers")
    for moment, own in ledgers.groupby("moment"):
        inside = closed(own, row["capacity_bytes"])
        assert (inside.get("workers", 0) > 0) == (variant == "processes"), moment
    own = ledgers[ledgers["moment"] == AT_ONCE]
    shares = own[own["owner"].isin(["llm request", "asr request"])]
    assert len(shares) == 2
    assert (shares["bytes"] > 0).all()
    assert (shares["bytes"] > 2**20).any()
    assert (shares["predicted_bytes"] > 0).all()
    assert closed(own, row["capacity_bytes"]).sum() == row["request_peak_bytes"]
    assert "their requests held" in key_findings.at_once(ledgers)[0]


@pytest.mark.slow
def test_the_edge_is_found_with_real_failures(tmp_path: Path) -> None:
    session = open_session(
        tmp_path,
        LimitsParams,
        limit_kinds=["batch"],
        limit_memory_gb=0.3,
        limit_max=64,
        headroom_strategies=["sequential"],
        headroom_repeats=2,
        fallback_chain=["small", "pocket-m"],
        fallback_memory_gb=0.6,
    )
    rows = memory_limits.measure(session)
    assert_ok(rows, 3)
    probes = session.table("probes")
    assert set(probes["limit_kind"]) == {"batch", "headroom", "fallback"}
    failed = probes[~probes["succeeded"].astype(bool)]
    assert {"batch", "headroom", "fallback"} <= set(failed["limit_kind"])
    assert all(out_of_memory(RuntimeError(message)) for message in failed["message"])
    assert failed["requested_bytes"].notna().any()
    assert failed["phase"].str.len().min() > 0
    assert rows[0]["limit_hit"]
    assert 1 <= rows[0]["limit_found"] < 64
    assert (rows[2]["served_by_model"], rows[2]["fallbacks"]) == ("pocket-m", 1)
    # peaks are those of the pair that served, and not of the one that filled the memory limit
    assert rows[2]["load_peak_bytes"] - rows[2]["process_baseline_bytes"] < 300 * 10**6
    assert rows[2]["margin_bytes"] > 300 * 10**6
    assert rows[2]["case_id"] not in set(session.table("ledgers")["case_id"])
    assert probes.query("limit_kind == 'fallback'")["at_request"].tolist() == ["load"]
    assert len(session.table("trials").query("case_id == @rows[2]['case_id']")) == 3
    table = tables.memory_limits_table(session.table("cases"), probes)
    assert list(table["asked"]) == ["largest batch", "headroom", "fallback"]
    assert session.table("cases")["memory_limited"].astype(bool).tolist() == [True, False, True]
    session.close()


def test_ageing_reads_memory_after_every_cycle_and_a_worker_can_be_replaced(tmp_path: Path) -> None:
    session = open_session(
        tmp_path,
        LimitsParams,
        soak_cycles=6,
        soak_requests=2,
        soak_max_audio_s=8.0,
        soak_strategies=["sequential", "swapping"],
        soak_mitigations=["none", "empty-cache", "expandable-segments", "restart"],
        mitigate_every=3,
    )
    rows = soak.measure(session)
    cycles = session.table("cycles")
    skipped = [row for row in rows if row["mitigation"] == "expandable-segments"]
    if session.device.is_host:
        assert {row["status"] for row in skipped} == {"skipped"}
        assert "CUDA" in skipped[0]["reason"]
    assert {row["status"] for row in rows if row not in skipped} == {"ok"}
    for (_, mitigation), own in cycles.groupby(["strategy", "mitigation"]):
        assert sorted(own["cycle"]) == list(range(6))
        assert own["output_unchanged"].astype(bool).all()
        assert (own["resident_bytes"] > 100 * 2**20).all()
        assert own["fragmentation"].between(0, 1).all()
        kept_house = set(own[own["maintenance_s"] > 0]["cycle"])
        assert kept_house == {"none": set(), "empty-cache": {2, 5}, "restart": {3}}[mitigation]
    loads = session.table("spans").query("phase == 'load' and role == 'asr'")
    swapped = loads[loads["case_id"].str.contains("swapping") & loads["request_id"].notna()]
    assert len(swapped) == 6 * 3  # under swapping a cycle loads and unloads Whisper
    session.close()


def test_a_stranger_makes_the_times_of_a_case_invalid(tmp_path: Path) -> None:
    """Another process keeps one processor busy: said, repeated once, and never taken for ok."""
    share = 0.25 / (os.cpu_count() or 1)
    session = open_session(tmp_path, max_other_cpu_share=share, trials=4)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        row = session.runner.run(session.case("strategy_comparison"))
        taken_apart = session.runner.run(session.case("co_residency", phases=True))
    finally:
        busy.kill()
        busy.wait()
    assert row["status"] == "invalid"
    assert "end them and repeat" in row["reason"]
    assert row["other_processes_cpu_share"] > share
    assert taken_apart["other_processes_cpu_share"] > share
    assert taken_apart["status"] == "ok"  # it is about bytes
    limits = session.case("request_scaling", work="limit", options={"batch": 1, "audio_s": 0.0})
    assert (
        session.runner.run(replace(limits, max_other_cpu_share=0.0))["status"] == "ok"
    )  # bytes stand
    session.close()


def test_pinned_attention_says_the_same(tmp_path: Path) -> None:
    """math, flash and expanded_kv are ways to compute one thing."""
    session = open_session(tmp_path, trials=1)
    pinned = {
        kind: session.runner.run(
            session.case("strategy_comparison", llm=replace(session.llm, attention=kind), warmup=0)
        )
        for kind in ("auto", "math", "expanded_kv", "efficient")
    }
    lacking = pinned.pop("efficient")
    assert lacking["status"] == "skipped"
    assert "no memory-efficient attention kernel" in lacking["reason"]
    assert_ok(list(pinned.values()), 3)
    taken = {kind: row["attention_kernel"] for kind, row in pinned.items()}
    assert taken == {"auto": "flash", "math": "math", "expanded_kv": "flash"}
    said = session.table("trials")[["transcript", "answer"]]
    assert len(said) == 3 and len(said.drop_duplicates()) == 1


def test_finished_cases_are_not_repeated_and_crashed_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tmp_path)
    case = session.case("strategy_comparison")
    first = session.runner.run(case)
    again = open_session(tmp_path).runner
    monkeypatch.setattr(again, "_run", lambda case: pytest.fail("was repeated"))
    assert again.run(case)["duration_s"] == first["duration_s"]
    broken = replace(case, round=1)
    session.part.writer.append("cases", {**broken.identity(), "status": "crashed", "reason": "x"})
    assert open_session(tmp_path).runner.run(broken)["status"] == "ok"
    assert len(session.table("cases")) == 2


def test_a_case_that_breaks_is_recorded_with_its_reason(tmp_path: Path) -> None:
    """One that hangs; a clip that is gone; a device that is not there; a table's disk that is full,
    of which a repeat finds nothing left."""
    session = open_session(tmp_path, trials=1)
    hung = open_session(tmp_path / "hung", timeout_s=0.3).runner
    assert hung.run(session.case("hung"))["status"] == "timeout"
    case = session.case("strategy_comparison", warmup=0)
    gone = replace(case.requests[0], path=str(tmp_path / "gone.wav"))
    table = session.part.folder / "trials.jsonl"
    table.symlink_to("/dev/full")
    for broken, status, reason in (
        (replace(case, requests=(gone,)), "crashed", "does not exist"),
        (replace(case, device="cuda:99"), "skipped", "'cuda:99' is not there"),
        (case, "crashed", "free some space and repeat with --resume"),
    ):
        row = session.runner.run(broken)
        assert row["status"] == status and reason in row["reason"]
        assert datetime.fromisoformat(row["started"]).tzinfo is not None
    table.unlink()
    assert_ok([session.runner.run(case)], 1)
    assert len(session.table("trials")) == 1


@pytest.mark.parametrize(
    ("broken", "error", "status", "reason"),
    [
        ("limit_memory", UnavailableError("no room"), "skipped", "no room"),
        (
            "ContentionMonitor",
            RuntimeError("CUDA error: out of memory"),
            "oom",
            "in phase set-up: CUDA error: out of memory",
        ),
    ],
)
def test_what_the_set_up_lacks_is_a_result(
    broken: str,
    error: Exception,
    status: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(case_worker, broken, fail)
    session = open_session(tmp_path, inline=True)
    row = session.runner.run(replace(session.case("strategy_comparison"), memory_limit_bytes=7_000))
    assert (row["status"], row["reason"]) == (status, reason)


@pytest.mark.gpu
def test_a_case_in_an_envelope_of_its_own_card_runs(tmp_path: Path) -> None:
    session = open_session(tmp_path, device="cuda", trials=1)
    own = session.device.capacity_bytes()
    row = session.runner.run(replace(session.case("strategy_comparison"), memory_limit_bytes=own))
    assert_ok([row], 1)
    assert row["capacity_bytes"] == own


@pytest.mark.gpu
def test_the_ledger_of_a_card_closes_within_a_few_kilobytes_for_each_tensor(tmp_path: Path) -> None:
    """Also in the first phases, before any library has taken what it keeps; and the margin is the
    least of the ledger's own free bytes."""
    session = open_session(tmp_path, device="cuda", trials=1)
    row = session.runner.run(session.case("co_residency", phases=True, warmup=0))
    assert_ok([row], 1)
    ledgers = session.table("ledgers")
    for moment, own in ledgers.groupby("moment"):
        bytes_of = own.set_index("owner")["bytes"]
        assert abs(bytes_of["unattributed"]) <= 2**20, moment
        assert bytes_of.sum() == row["capacity_bytes"]
        assert bytes_of.drop("unattributed").min() >= 0, moment
    owned = ledgers.pivot_table(index="moment", columns="owner", values="bytes")
    assert owned.loc["request_peak", "workspaces"] > 0
    assert owned.loc["load_peak", "workspaces"] == 0
    assert owned.loc["idle", "workspaces"] > 0  # idle is warm
    assert row["margin_bytes"] == owned["free"].min()


def test_sizes_that_do_not_fit_are_skipped_with_the_bytes_they_need(tmp_path: Path) -> None:
    session = open_session(
        tmp_path, BesideParams, asr_models=["tiny", "large-v3"], memory_budget_gb=1.5
    )
    rows = beside.measure(session)[:2]
    assert [row["status"] for row in rows] == ["ok", "skipped"]
    assert "needs" in rows[1]["reason"]
    assert rows[0]["asr_weights_bytes"] == 37_760_640 * 4
    session.close()


def test_the_pair_is_loaded_in_both_orders(tmp_path: Path) -> None:
    session = open_session(tmp_path, BesideParams, asr_models=[], load_paths=["direct", "staged"])
    rows = beside.measure(session)
    assert_ok(rows, 4)
    assert [(row["load_order"], row["load_path"]) for row in rows] == list(
        itertools.product(["llm-first", "asr-first"], ["direct", "staged"])
    )
    spans = session.table("spans").query("phase == 'load'")
    order = spans.sort_values("start_s").groupby("case_id", sort=False)["role"].first()
    assert [order[row["case_id"]] for row in rows] == ["llm", "llm", "asr", "asr"]


def test_loading_is_measured_in_each_backend_and_dtype_that_the_device_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(
        tmp_path,
        BesideParams,
        asr_models=[],
        load_orders=["llm-first"],
        load_backends=["openai-whisper", "transformers"],
        load_dtypes=["auto", "float16"],
    )
    monkeypatch.setattr(session.runner, "run", lambda case: {**case.identity(), "status": "ok"})
    rows = beside.measure(session)
    half = "ok" if "float16" in session.device.native_dtypes() else "skipped"
    assert [(row["asr_backend"], row["asr_dtype"], row["status"]) for row in rows] == [
        ("openai-whisper", "float32", "ok"),
        ("openai-whisper", "float16", half),
        ("transformers", "float32", "ok"),
        ("transformers", "float16", half),
    ]
    assert half == "ok" or "no float16 in hardware" in rows[1]["reason"]


def test_missing_weights_are_found_before_a_case_starts(tmp_path: Path) -> None:
    session = open_session(tmp_path, asr_weights="local", asr_path=str(tmp_path))
    with pytest.raises(WeightsError, match=r"no config\.json"):
        session.preflight()


def test_arms_have_the_options_that_their_variants_take() -> None:
    params = SequentialParams(batch=3)
    found = {arm.variant: arm.options for arm in strategy_comparison.arms_of(params, "sequential")}
    assert found == {
        "plain": {},
        "empty-cache": {},
        "asyncio": {"max_in_flight": params.max_in_flight},
        "batched": {"batch": 3},
    }
    swapped = strategy_comparison.arms_of(SwappingParams(swap="both"), "swapping")
    assert {arm.options["swap"] for arm in swapped} == {"both"}
