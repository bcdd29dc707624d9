"""The fallback ladder as an option of a race: real failures of the allocator in the middle of a
stream, while loading, and with nothing that fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridlab.analysis.standings import standings
from hybridlab.config.params import ParallelParams, SequentialParams
from hybridlab.devices import CpuDevice
from hybridlab.devices.envelope import make_envelope
from hybridlab.experiments import execute, race, serving
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab
from hybridlab.processes.isolate import CaseServer
from hybridlab.reporting import findings
from hybridlab.strategies import Request
from hybridlab.strategies.sequential import Sequential

pytestmark = pytest.mark.usefixtures("case_server")

ROOM_BYTES = 256 * 1024
SERVED_BEFORE = 2
ARMS = [
    race.Arm("parallel", "threads"),
    race.Arm("sequential", "batched", {"batch": 2}),
    race.Arm("sequential", "asyncio", {"in_flight": 2}),
    race.Arm("pipelined", "lookahead"),
    race.Arm("swapping", "arena-overlapped"),
]


def open_lab(tmp_path: Path, **values: Any) -> Lab:
    small = {
        "output_dir": str(tmp_path / "run"),
        "device": "cpu",
        "headless": True,
        "trials": 4,
        "max_new_tokens": 8,
        "most_foreign_cpu": 1.0,
        "whisper_size": "base",
        "whisper_backend": "transformers",
        "whisper_weights": "random",
        "fallback_sizes": ["pocket-m"],
    }
    return Lab.open(SequentialParams.from_mapping({**small, **values}))


def starve(case: Case, writer: Any, result: Path) -> None:
    """Run the case; after some requests nothing more can be allocated than there is by then."""
    envelope, write, written = make_envelope(CpuDevice()), execute.write_trial, []

    def write_and_starve(context: Any, spec: Any, served: Any, **columns: Any) -> None:
        write(context, spec, served, **columns)
        written.append(spec.id)
        if len(written) == SERVED_BEFORE:
            context.device.release()
            envelope.leave(ROOM_BYTES)

    execute.write_trial = write_and_starve
    execute.execute(case, writer.with_common(**case.common()), result)


def finished(lab: Lab, case: Case, result: Path) -> dict[str, Any]:
    row = {**case.identity(), "stable": None, **json.loads(result.read_text())}
    return lab.part.writer.append("cases", row)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.variant)
def test_a_failure_in_mid_stream_steps_down_and_loses_no_request(
    arm: race.Arm, tmp_path: Path, case_server: CaseServer
) -> None:
    lab = open_lab(tmp_path)
    case = replace(race._race_case(lab, arm, 0, ""), envelope_bytes=16 * 10**9)
    result, log = tmp_path / "result.json", tmp_path / "log"
    ended = case_server.run(starve, case, lab.part.writer, result, log=log)
    assert ended.ok, log.read_text()
    row = finished(lab, case, result)
    assert row["status"] == "ok", row["reason"]
    assert (row["served_by"], row["steps_down"]) == ("pocket-m", 1)
    trials = lab.table("trials")
    trials = trials[~trials["first"].astype(bool)]
    assert list(trials["request_id"]) == [spec.id for spec in case.requests]
    assert list(trials["served_by"]) == ["base"] * SERVED_BEFORE + ["pocket-m"] * 2
    assert trials["transcript"].isna().tolist() == [True, True, False, False]  # random weights
    (step,) = lab.table("probes").to_dict("records")
    assert (step["from_size"], step["to_size"]) == ("base", "pocket-m")
    assert step["when"] == case.requests[SERVED_BEFORE].id
    assert not step["survived"]
    assert step["phase"]
    sentence = findings.stepped_down(lab.table("cases"), lab.table("probes"))[0]
    assert "stepped down from base to pocket-m at request" in sentence
    assert standings(lab.table("cases"), lab.table("trials")) == []  # no result of this pair


def test_a_race_steps_down_while_loading_but_its_control_does_not(tmp_path: Path) -> None:
    """The envelope leaves no room for the larger Whisper from the beginning."""
    lab = open_lab(tmp_path, whisper_size="small", trials=1)
    envelope = {"envelope_bytes": 600 * 10**6}
    arms = [race.CONTROL, race.Arm("sequential", "empty-cache"), race.Arm("solo", "naive")]
    rungs = [race._rungs(lab, arm) for arm in arms]
    assert [len(own) for own in rungs] == [0, 2, 0]
    rows = [
        lab.runner.run(race.arm_case(lab, "race", arm, rungs=own, **envelope))
        for arm, own in zip(arms, rungs, strict=True)
    ]
    assert [row["status"] for row in rows] == ["oom", "ok", "ok"], [row["reason"] for row in rows]
    assert rows[1]["served_by"] == "pocket-m"
    # peaks are those of the pair that served, and not of the one that filled the envelope
    assert rows[1]["load_peak_bytes"] - rows[1]["base_bytes"] < 300 * 10**6
    assert rows[1]["margin_bytes"] > 300 * 10**6
    (step,) = lab.table("probes").to_dict("records")
    assert step["when"] == "load"
    said = findings.race(lab.table("cases"), lab.table("trials"), lab.table("probes"))
    assert any("from small to pocket-m before the first request" in text for text in said)


def test_nothing_that_fits_is_out_of_memory_with_every_step(tmp_path: Path) -> None:
    lab = open_lab(tmp_path, whisper_size="small", fallback_sizes=["base"], trials=1)
    arm = race.Arm("sequential", "empty-cache")
    rungs = race._rungs(lab, arm)
    case = race.arm_case(lab, "race", arm, rungs=rungs, envelope_bytes=250 * 10**6)
    row = lab.runner.run(case)
    assert row["status"] == "oom"
    assert "in phase whisper load: not even base fits beside Voxtral" in row["reason"]
    steps = lab.table("probes")
    assert list(steps["from_size"]) == ["small", "base"]
    assert list(steps["to_size"].fillna("")) == ["base", ""]
    said = findings.stepped_down(lab.table("cases"), steps)
    assert said == []  # the reason of the case says it


def fail_in_workers(case: Case, writer: Any, result: Path) -> None:
    """Run the case; its own Whisper fails at the last request."""
    serve, load = serving.measured_request, serving.load

    def fail(context: Any, strategy: Any, request: Request, **options: Any) -> Any:
        if context.case.transcriber == case.transcriber and request.id == case.requests[-1].id:
            raise MemoryError("failed to allocate")
        return serve(context, strategy, request, **options)

    def look(context: Any, strategy: Any) -> None:
        context.result["alive"] = [member.alive for member in context.device.members]
        load(context, strategy)

    serving.measured_request, serving.load = fail, look
    execute.execute(case, writer.with_common(**case.common()), result)


def test_workers_of_the_larger_whisper_are_gone_when_the_smaller_one_is_loaded(
    tmp_path: Path, case_server: CaseServer
) -> None:
    lab = open_lab(tmp_path, trials=2)
    case = race._race_case(lab, race.Arm("parallel", "processes"), 0, "")
    result, log = tmp_path / "result.json", tmp_path / "log"
    ended = case_server.run(fail_in_workers, case, lab.part.writer, result, log=log)
    assert ended.ok, log.read_text()
    row = finished(lab, case, result)
    assert row["status"] == "ok", row["reason"]
    assert (row["served_by"], row["steps_down"]) == ("pocket-m", 1)
    assert row["alive"] == [False, False, True, True]


def fail_to_restart(case: Case, writer: Any, result: Path) -> None:
    """Run the case; its own Whisper cannot be loaded a second time."""
    load, loaded = Sequential.open, []

    def once(strategy: Sequential) -> None:
        loaded.append(strategy.transcriber.spec.model)
        if loaded == ["base", "base"]:
            raise MemoryError("failed to allocate")
        load(strategy)

    Sequential.open = once  # type: ignore[method-assign]
    execute.execute(case, writer.with_common(**case.common()), result)


def test_a_restart_that_finds_no_memory_steps_down(tmp_path: Path, case_server: CaseServer) -> None:
    lab = open_lab(tmp_path, trials=3, restart_above=0.0001)  # a heap always holds so much unused
    case = race._race_case(lab, race.Arm("sequential", "empty-cache"), 0, "")
    result, log = tmp_path / "result.json", tmp_path / "log"
    ended = case_server.run(fail_to_restart, case, lab.part.writer, result, log=log)
    assert ended.ok, log.read_text()
    row = finished(lab, case, result)
    assert (row["status"], row["served_by"], row["steps_down"]) == ("ok", "pocket-m", 1)
    trials = lab.table("trials")
    trials = trials[~trials["first"].astype(bool)]
    assert list(trials["request_id"]) == [spec.id for spec in case.requests]
    assert list(trials["served_by"]) == ["base", "pocket-m", "pocket-m"]


def test_a_race_with_memory_enough_stays_on_its_own_whisper(tmp_path: Path) -> None:
    own = {"whisper_size": "pocket-m", "whisper_weights": "pocket"}
    lab = open_lab(tmp_path, **own, fallback_sizes=["pocket-s"], trials=2)
    lab.preflight()
    rows = race.run(lab, [race.CONTROL, race.Arm("sequential", "batched")], rounds=1)
    assert [row["status"] for row in rows] == ["ok"] * 3, [row["reason"] for row in rows]
    assert (rows[2]["served_by"], rows[2]["steps_down"]) == ("pocket-m", 0)
    assert "served_by" not in rows[1]
    trials = lab.table("trials")
    assert trials[trials["experiment"] == "race"]["parity"].dropna().astype(bool).all()
    assert rows[2]["case_id"] in set(lab.table("ledgers")["case_id"])
    assert lab.table("probes").empty
    assert len(findings.race(lab.table("cases"), trials, lab.table("probes"))) == 3


def test_parity_after_a_step_is_about_the_answer_alone() -> None:
    def tokens(*numbers: int) -> Any:
        return type("Said", (), {"tokens": numbers})

    class Pair:
        name = "sequential"
        transcriber = device = type("On", (), {"kind": "cpu", "device": None})

    Pair.transcriber.device = Pair.device
    spec: Any = type("Spec", (), {"id": "a", "clip_id": "c"})
    expected = {"answer/a": [1], "whisper/c": [2]}
    for answer, stepped, parity in [((1,), False, False), ((1,), True, None), ((9,), True, False)]:
        served: Any = type("S", (), {"answer": tokens(*answer), "transcript": tokens(3)})
        found = execute._parity(expected, Pair(), spec, served, stepped=stepped)  # type: ignore[arg-type]
        assert found is parity


def test_only_smaller_sizes_can_be_stepped_down_to() -> None:
    pair = {"whisper_size": "small", "whisper_weights": "random"}
    for sizes in (["small"], ["medium"], ["tiny", "base"]):
        with pytest.raises(Exception, match="which is no smaller"):
            ParallelParams.from_mapping({**pair, "fallback_sizes": sizes})
    assert ParallelParams.from_mapping({**pair, "fallback_sizes": ["base", "pocket-m"]})
