"""Cases in processes of their own: results, faults, resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hybridlab.analysis import waiting
from hybridlab.analysis.interference import slowdowns
from hybridlab.config.params import (
    BesideParams,
    LimitsParams,
    ParallelParams,
    Params,
    SequentialParams,
    SwappingParams,
)
from hybridlab.devices.oom import out_of_memory
from hybridlab.errors import UnavailableError, WeightsError
from hybridlab.experiments import ageing, arrivals, beside, edge, execute, interference, race
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.processes.isolate import CaseServer
from hybridlab.reporting import figures, findings, tables
from hybridlab.results.records import AT_ONCE

pytestmark = pytest.mark.usefixtures("case_server")


def open_lab(tmp_path: Path, model: type[Params] = SequentialParams, **values: Any) -> Lab:
    small = {"output_dir": str(tmp_path / "run"), "trials": 2, "max_new_tokens": 12}
    values = {**small, "most_foreign_cpu": 1.0, **values}
    return Lab.open(model.from_mapping({"headless": True, **values}))


def test_a_race_of_all_strategies_passes_the_parity_gate(tmp_path: Path) -> None:
    lab = open_lab(tmp_path)
    arms = [
        race.Arm("solo", "naive"),
        race.CONTROL,
        race.Arm("parallel", "threads"),
        race.Arm("swapping", "reload-warm", {"swap": "both"}),
    ]
    rows = race.run(lab, arms, rounds=1)
    assert [row["status"] for row in rows] == ["ok"] * 5, [row["reason"] for row in rows]
    trials = lab.table("trials")
    measured = trials[(trials["experiment"] == "race") & ~trials["first"].astype(bool)]
    assert len(measured) == 2 * len(arms)
    assert measured["parity"].astype(bool).all()
    assert (measured["latency_s"] > 0).all()
    spans = lab.table("spans")
    assert {"load", "encode", "prefill", "decode"} <= set(spans["phase"])
    assert (spans["end_s"] >= spans["start_s"]).all()
    lab.close()
    assert json.loads((lab.part.folder / "manifest.json").read_text())["status"] == "completed"


def test_housekeeping_between_requests_changes_no_text(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, restart_above=0.0001)  # a heap always holds so much unused
    arms = [race.CONTROL, race.Arm("sequential", "empty-cache"), race.Arm("swapping", "arena")]
    rows = race.run(lab, arms, rounds=1)
    assert [row["status"] for row in rows] == ["ok"] * 4, [row["reason"] for row in rows]
    restarts = {(row["strategy"], row["variant"]): row["restarts"] for row in rows[1:]}
    assert restarts.pop(("sequential", "plain")) == 0
    assert all(count == 2 for count in restarts.values()), restarts
    trials = lab.table("trials")
    assert trials[trials["experiment"] == "race"]["parity"].dropna().astype(bool).all()


def test_the_ledger_at_rest_knows_nothing_of_weights_that_came_with_a_request(
    tmp_path: Path,
) -> None:
    """Under this variant Whisper is in again when the last request ends."""
    lab = open_lab(tmp_path, trials=1)
    row = lab.runner.run(lab.case("race", strategy="swapping", variant="arena-overlapped"))
    ledgers = lab.table("ledgers")
    for moment in ("load_peak", "steady"):
        own = ledgers[(ledgers["moment"] == moment) & ledgers["inside"].astype(bool)]
        assert "whisper weights" not in set(own["owner"])
        unexplained = own[own["owner"] == "unexplained"]["bytes"].sum()
        assert abs(unexplained) <= 0.05 * own["bytes"].sum(), moment
    assert row["status"] == "ok", row["reason"]


def test_requests_at_their_own_times_wait_for_each_other(tmp_path: Path) -> None:
    lab = open_lab(
        tmp_path, SwappingParams, arrival_requests=4, arrival_loads=[5.0], break_even_repeats=2
    )
    params = cast(SwappingParams, lab.params)
    arms = [race.CONTROL, race.Arm("pipelined", "lookahead")]
    assert arrivals.measure(lab, arms, params) == []  # without a race there is no capacity
    race.run(lab, arms, rounds=1)
    rows = arrivals.measure(lab, arms, params)
    rows += arrivals.lengths(lab, arms, params)
    assert [row["status"] for row in rows] == ["ok"] * 4, [row["reason"] for row in rows]
    trials = lab.table("trials")
    queued = trials[(trials["experiment"] == "arrivals") & ~trials["first"].astype(bool)]
    assert len(queued) == 8
    assert (queued["latency_s"] >= queued["wait_s"]).all()
    last = queued.groupby("case_id")["wait_s"].last()
    assert (last > 0.01).all()  # five times as many requests as can be served
    services = waiting.service_times(trials)
    assert set(services["audio_s"]) == {15.0, 30.0, 60.0}
    assert (services["n"] == 2).all()
    assert len(waiting.break_even(services, control="sequential / plain")) == 3 * 8


def test_every_two_parties_collide_and_nobody_is_left_at_work(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, ParallelParams, interference_requests=1, interference_repeats=3)
    row = interference.measure(lab, cast(ParallelParams, lab.params))
    assert row is not None
    assert row["status"] == "ok", row["reason"]
    spans = lab.table("spans")
    labels = spans["request_id"].dropna().str.split(":").str[0]
    pairs = {"voxtral+whisper", "voxtral+copy", "whisper+copy"}
    assert pairs | {"alone"} <= set(labels)
    for pair in pairs:
        own = spans[spans["request_id"].astype(str).str.startswith(pair)]
        assert set(own["tenant"]) == set(pair.split("+"))
    found = slowdowns(spans)
    beside = found[(found["tenant"] == "voxtral") & (found["phase"] == "encode")]
    assert "copy-in" in set(beside["other_phase"])
    assert (beside["low"] <= beside["slowdown"]).all()
    assert "beside" in figures.interference(spans).get_suptitle()


def test_the_ledger_closes_at_every_moment(tmp_path: Path) -> None:
    """The case's rows sum to what it used, all rows to the device, and little is unexplained."""
    lab = open_lab(tmp_path)
    row = lab.runner.run(lab.case("beside", phases=True))
    ledgers = lab.table("ledgers")
    phases = {"whisper encode", "whisper decode", "voxtral encode", "voxtral prefill"}
    assert phases <= set(ledgers["moment"])
    for moment, own in ledgers.groupby("moment"):
        inside = own[own["inside"].astype(bool)]
        used = inside["bytes"].sum()
        if moment in ("load_peak", "steady"):
            assert used == row["steady_bytes" if moment == "steady" else f"{moment}_bytes"]
        assert own["bytes"].sum() == row["capacity_bytes"]
        unexplained = inside[inside["owner"] == "unexplained"]["bytes"].sum()
        assert abs(unexplained) <= 0.05 * used, moment
    requests = ledgers[(ledgers["owner"] == "request") & (ledgers["moment"] == "voxtral encode")]
    assert (requests["bytes"] > 0).all()
    assert (requests["predicted_bytes"] > 0).all()


def test_tenants_that_work_at_once_are_told_apart(tmp_path: Path) -> None:
    lab = open_lab(tmp_path)
    row = race.tell_apart(lab, race.Arm("parallel", "threads"))
    assert row["status"] == "ok", row["reason"]
    ledgers = lab.table("ledgers")
    own = ledgers[ledgers["moment"] == AT_ONCE]
    shares = own[own["owner"].isin(["voxtral request", "whisper request"])]
    assert len(shares) == 2
    assert (shares["bytes"] > 2**20).any()
    assert (shares["predicted_bytes"] > 0).all()
    inside = own[own["inside"].astype(bool)]
    assert own["bytes"].sum() == row["capacity_bytes"]
    assert inside["bytes"].sum() == row["request_peak_bytes"]
    unexplained = inside[inside["owner"] == "unexplained"]["bytes"].sum()
    assert abs(unexplained) <= 0.05 * inside["bytes"].sum()
    assert "their requests held" in findings.at_once(ledgers)[0]


def test_the_edge_is_found_with_real_failures(tmp_path: Path) -> None:
    lab = open_lab(
        tmp_path,
        LimitsParams,
        edge_asks=["batch"],
        edge_envelope_gb=0.3,
        edge_most=64,
        squeeze_strategies=["sequential"],
        squeeze_repeats=2,
        ladder=["small", "pocket-m"],
        ladder_envelope_gb=0.6,
    )
    rows = edge.measure(lab)
    assert [row["status"] for row in rows] == ["ok"] * 3, [row["reason"] for row in rows]
    probes = lab.table("probes")
    assert set(probes["ask"]) == {"batch", "squeeze", "ladder"}
    failed = probes[~probes["survived"].astype(bool)]
    assert {"batch", "squeeze", "ladder"} <= set(failed["ask"])
    assert all(out_of_memory(RuntimeError(message)) for message in failed["message"])
    assert failed["requested_bytes"].notna().any()
    assert failed["phase"].str.len().min() > 0
    assert rows[0]["reached"]
    assert 1 <= rows[0]["largest_value"] < 64
    assert rows[2]["served_by"] == "pocket-m"
    assert len(lab.table("trials").query("case_id == @rows[2]['case_id']")) == 3
    table = tables.edge_table(lab.table("cases"), probes)
    assert list(table["asked"]) == ["largest batch", "squeeze", "ladder"]
    assert lab.table("cases")["enveloped"].astype(bool).tolist() == [True, False, True]
    lab.close()


def test_ageing_reads_memory_after_every_cycle_and_a_worker_can_be_replaced(tmp_path: Path) -> None:
    lab = open_lab(
        tmp_path,
        LimitsParams,
        ageing_cycles=6,
        ageing_requests=2,
        ageing_max_audio_s=8.0,
        ageing_strategies=["sequential", "swapping"],
        ageing_remedies=["none", "empty-cache", "expandable-segments", "restart"],
        remedy_every=3,
    )
    rows = ageing.measure(lab)
    cycles = lab.table("cycles")
    skipped = [row for row in rows if row["remedy"] == "expandable-segments"]
    if lab.device.kind == "cpu":
        assert {row["status"] for row in skipped} == {"skipped"}
        assert "CUDA" in skipped[0]["reason"]
    assert {row["status"] for row in rows if row not in skipped} == {"ok"}
    for (_, remedy), own in cycles.groupby(["strategy", "remedy"]):
        assert sorted(own["cycle"]) == list(range(6))
        assert own["same_text"].astype(bool).all()
        assert (own["resident_bytes"] > 100 * 2**20).all()
        assert own["fragmentation"].between(0, 1).all()
        kept_house = set(own[own["housekeeping_s"] > 0]["cycle"])
        assert kept_house == {"none": set(), "empty-cache": {2, 5}, "restart": {3}}[remedy]
    loads = lab.table("spans").query("phase == 'load' and tenant == 'whisper'")
    swapped = loads[loads["case_id"].str.contains("swapping") & loads["request_id"].notna()]
    assert len(swapped) == 6 * 3  # under swapping a cycle loads and unloads Whisper
    lab.close()


def test_a_stranger_makes_the_times_of_a_case_invalid(tmp_path: Path) -> None:
    """Another process keeps one processor busy: said, repeated once, and never taken for ok."""
    share = 0.25 / (os.cpu_count() or 1)
    lab = open_lab(tmp_path, most_foreign_cpu=share, trials=4)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        row = lab.runner.run(lab.case("race"))
        taken_apart = lab.runner.run(lab.case("beside", phases=True))
    finally:
        busy.kill()
        busy.wait()
    assert row["status"] == "invalid"
    assert "end them and repeat" in row["reason"]
    assert row["foreign_cpu_share"] > share
    assert taken_apart["foreign_cpu_share"] > share
    assert taken_apart["status"] == "ok"  # it is about bytes
    limits = lab.case("limits", work="limit", options={"batch": 1, "audio_s": 0.0})
    assert lab.runner.run(replace(limits, most_foreign_cpu=0.0))["status"] == "ok"  # bytes stand
    lab.close()


def test_pinned_attention_says_the_same(tmp_path: Path) -> None:
    """math, flash and expanded_kv are ways to compute one thing."""
    lab = open_lab(tmp_path)
    said = {}
    for kind in ("auto", "math", "expanded_kv"):
        analyst = replace(lab.analyst, attention=kind)
        row = lab.runner.run(lab.case("race", analyst=analyst))
        assert row["status"] == "ok", row["reason"]
        own = lab.table("trials").query("case_id == @row['case_id']")
        said[kind] = list(zip(own["transcript"], own["answer"], strict=True))
    assert said["auto"] == said["math"] == said["expanded_kv"]
    lacking = lab.runner.run(lab.case("race", analyst=replace(lab.analyst, attention="efficient")))
    assert lacking["status"] == "skipped"
    assert "no memory-efficient attention kernel" in lacking["reason"]


def test_finished_cases_are_not_repeated_and_crashed_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab(tmp_path)
    case = lab.case("race")
    first = lab.runner.run(case)
    again = open_lab(tmp_path).runner
    monkeypatch.setattr(again, "_run", lambda case: pytest.fail("was repeated"))
    assert again.run(case)["duration_s"] == first["duration_s"]
    broken = replace(case, round=1)
    lab.part.writer.append(
        "cases", {**broken.identity(), "status": "crashed", "reason": "x", "stable": None}
    )
    assert open_lab(tmp_path).runner.run(broken)["status"] == "ok"
    assert len(lab.table("cases")) == 2


def test_a_case_that_breaks_is_recorded_with_its_reason(tmp_path: Path) -> None:
    lab = open_lab(tmp_path)
    case = lab.case("race")
    spec = replace(case.requests[0], path=str(tmp_path / "gone.wav"))
    row = lab.runner.run(replace(case, requests=(spec,)))
    assert row["status"] == "crashed"
    assert "does not exist" in row["reason"]


def test_a_case_that_lacks_its_machine_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """Before any work began: the device is not there, or cannot play the smaller card."""
    lab = open_lab(tmp_path)
    row = lab.runner.run(replace(lab.case("race"), device="cuda:99"))
    assert row["status"] == "skipped"
    assert "'cuda:99' is not there" in row["reason"]
    lab.close()


def test_a_case_that_cannot_enter_its_envelope_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: Any, capacity_bytes: int) -> Any:
        raise UnavailableError(f"{capacity_bytes} bytes are not there")

    monkeypatch.setattr(execute, "enveloped", refuse)
    lab = open_lab(tmp_path, inline=True)
    row = lab.runner.run(replace(lab.case("race"), envelope_bytes=7_000))
    assert (row["status"], row["reason"]) == ("skipped", "7000 bytes are not there")


def test_no_memory_for_the_set_up_is_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(device: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(execute, "Watch", fail)
    lab = open_lab(tmp_path, inline=True)
    row = lab.runner.run(lab.case("race"))
    assert row["status"] == "oom"
    assert row["reason"] == "in phase set-up: CUDA error: out of memory"


@pytest.mark.gpu
def test_a_case_in_an_envelope_of_its_own_card_runs(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, device="cuda", trials=1)
    own = lab.device.capacity_bytes()
    row = lab.runner.run(replace(lab.case("race"), envelope_bytes=own))
    assert row["status"] == "ok", row["reason"]
    assert row["capacity_bytes"] == own


@pytest.mark.gpu
def test_the_ledger_of_a_card_closes_within_a_few_kilobytes_for_each_tensor(tmp_path: Path) -> None:
    """Also in the first phases, before any library has taken what it keeps; and the margin is the
    least of the ledger's own free bytes."""
    lab = open_lab(tmp_path, device="cuda", trials=1)
    row = lab.runner.run(lab.case("beside", phases=True, warmup=0))
    assert row["status"] == "ok", row["reason"]
    ledgers = lab.table("ledgers")
    for moment, own in ledgers.groupby("moment"):
        bytes_of = own.set_index("owner")["bytes"]
        assert abs(bytes_of["unexplained"]) <= 2**20, moment
        assert bytes_of.sum() == row["capacity_bytes"]
        assert bytes_of.drop("unexplained").min() >= 0, moment
    owned = ledgers.pivot_table(index="moment", columns="owner", values="bytes")
    assert owned.loc["request_peak", "workspaces"] > 0
    assert owned.loc["steady", "workspaces"] == 0
    assert row["margin_bytes"] == owned["free"].min()


def test_a_full_disk_ends_a_case_in_one_line_and_a_repeat_finds_room(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, trials=1)
    table = lab.part.folder / "trials.jsonl"
    table.symlink_to("/dev/full")
    case = lab.case("race", warmup=0)
    row = lab.runner.run(case)
    assert row["status"] == "crashed"
    assert "free some space and repeat with --resume" in row["reason"]
    table.unlink()
    assert lab.runner.run(case)["status"] == "ok"
    assert len(lab.table("trials")) == 1
    lab.close()


def test_a_hung_case_is_a_timeout(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, timeout_s=0.3)
    assert lab.runner.run(lab.case("race"))["status"] == "timeout"


def test_out_of_memory_is_a_result_with_its_phase(tmp_path: Path, case_server: CaseServer) -> None:
    lab = open_lab(tmp_path)
    result = tmp_path / "result.json"
    ended = case_server.run(run_with_little_memory, lab.case("race"), lab.part.writer, result)
    assert ended.ok
    row = json.loads(result.read_text())
    assert row["status"] == "oom"
    assert "in phase voxtral load" in row["reason"]


def run_with_little_memory(case: Case, writer: Any, result: Path) -> None:
    """A real limit: the allocator itself fails."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[5]) * 4096
    spec = replace(case.analyst, model="mini-3b", weights="random")
    resource.setrlimit(resource.RLIMIT_DATA, (used + 600 * 2**20, used + 600 * 2**20))
    writer = writer.with_common(case_id=case.id, experiment=case.experiment)
    execute.execute(replace(case, analyst=spec), writer, result)


def test_sizes_that_do_not_fit_are_skipped_with_the_bytes_they_need(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, BesideParams, whisper_sizes=["tiny", "large-v3"], memory_budget_gb=1.5)
    rows = beside.measure(lab)[:2]
    assert [row["status"] for row in rows] == ["ok", "skipped"]
    assert "needs" in rows[1]["reason"]
    assert rows[0]["whisper_bytes"] == 37_760_640 * 4
    lab.close()


def test_the_pair_is_loaded_in_both_orders(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, BesideParams, whisper_sizes=[], load_paths=["direct", "staged"])
    rows = beside.measure(lab)
    assert [(row["load_order"], row["load_path"], row["status"]) for row in rows] == [
        ("voxtral-first", "direct", "ok"),
        ("voxtral-first", "staged", "ok"),
        ("whisper-first", "direct", "ok"),
        ("whisper-first", "staged", "ok"),
    ]
    spans = lab.table("spans").query("phase == 'load'")
    order = spans.sort_values("start_s").groupby("case_id", sort=False)["tenant"].first()
    assert order[rows[0]["case_id"]] == "voxtral"
    assert order[rows[2]["case_id"]] == "whisper"


def test_loading_is_measured_in_each_backend_and_dtype_that_the_device_has(tmp_path: Path) -> None:
    lab = open_lab(
        tmp_path,
        BesideParams,
        whisper_sizes=[],
        load_orders=["voxtral-first"],
        load_backends=["openai-whisper", "transformers"],
        load_dtypes=["auto", "float16"],
    )
    rows = beside.measure(lab)
    seen = [(row["whisper_backend"], row["whisper_dtype"], row["status"]) for row in rows]
    half = "ok" if "float16" in lab.device.native_dtypes() else "skipped"
    assert seen == [
        ("openai-whisper", "float32", "ok"),
        ("openai-whisper", "float16", half),
        ("transformers", "float32", "ok"),
        ("transformers", "float16", half),
    ]
    assert half == "ok" or "no float16 in hardware" in rows[1]["reason"]


def test_inline_gives_the_same_columns(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, inline=True)
    row = lab.runner.run(lab.case("race"))
    assert row["status"] == "ok"
    assert row["steady_bytes"] > 0


def test_missing_weights_are_found_before_a_case_starts(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, whisper_weights="local", whisper_path=str(tmp_path))
    with pytest.raises(WeightsError, match=r"no config\.json"):
        lab.preflight()
