"""The fallback ladder as an option of a race: real failures of the allocator in the middle of a
stream, while loading, and with nothing that fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab.analysis.arms import standings
from hybridlab.config.params import ParallelParams
from hybridlab.devices import CpuDevice
from hybridlab.devices.memory_limit import make_memory_limit
from hybridlab.experiments import case_worker
from hybridlab.experiments.case import Case
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.plans.strategy_comparison import Arm
from hybridlab.experiments.session import Session
from hybridlab.experiments.workloads import common, serve
from hybridlab.processes.fork_server import CaseServer
from hybridlab.reporting import key_findings
from hybridlab.strategies import CompletedRequest, Request, Strategy
from hybridlab.strategies.sequential import Sequential
from tests import sessions
from tests.sessions import arms, assert_ok, later, raced

pytestmark = pytest.mark.usefixtures("case_server")

ROOM_BYTES = 256 * 1024
SERVED_BEFORE = 2
ARMS = [
    *arms("parallel/threads", "pipelined/prefetch", "swapping/single-buffer-overlapped"),
    Arm("sequential", "batched", {"batch": 2}),
    Arm("sequential", "asyncio", {"max_in_flight": 2}),
]


def open_session(tmp_path: Path, **values: Any) -> Session:
    """A pair whose recogniser can be replaced by a small one with real words."""
    pair = {"asr_model": "base", "asr_backend": "transformers", "asr_weights": "random"}
    smaller = {"fallback_models": ["pocket-m"], "device": "cpu", "trials": 4, "max_new_tokens": 8}
    return sessions.open_session(tmp_path, **{**pair, **smaller, **values})


def starve(case: Case, writer: Any, result: Path) -> None:
    """Run the case; after some requests nothing more can be allocated than there is by then."""
    limit, write, written = make_memory_limit(CpuDevice()), serve.write_trial, []

    def write_and_starve(context: Any, spec: Any, served: Any, **columns: Any) -> None:
        write(context, spec, served, **columns)
        written.append(spec.id)
        if len(written) == SERVED_BEFORE:
            context.device.release()
            limit.leave(ROOM_BYTES)

    serve.write_trial = write_and_starve
    case_worker.execute(case, writer.with_common(**case.common()), result)


def served(
    session: Session, arm: Arm, run: Any, case_server: CaseServer, tmp_path: Path, **fields: Any
) -> tuple[Case, pd.DataFrame]:
    """The arm's case of a race, run by `run` in a process of its own and stepped down once, and its
    trials but for first requests."""
    case = replace(strategy_comparison._race_case(session, arm, 0, ""), **fields)
    result, log = tmp_path / "result.json", tmp_path / "log"
    ended = case_server.run(run, case, session.part.writer, result, log=log)
    assert ended.ok, log.read_text()
    row = {**case.identity(), **json.loads(result.read_text())}
    session.part.writer.append("cases", row)
    assert_ok([row], 1)
    assert (row["served_by_model"], row["fallbacks"]) == ("pocket-m", 1)
    trials = later(session.table("trials"))
    assert list(trials["request_id"]) == [spec.id for spec in case.requests]
    return case, trials


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.variant)
def test_a_failure_in_mid_stream_steps_down_and_loses_no_request(
    arm: Arm, tmp_path: Path, case_server: CaseServer
) -> None:
    session = open_session(tmp_path)
    case, trials = served(
        session, arm, starve, case_server, tmp_path, memory_limit_bytes=16 * 10**9
    )
    assert list(trials["served_by_model"]) == ["base"] * SERVED_BEFORE + ["pocket-m"] * 2
    assert trials["transcript"].isna().tolist() == [True, True, False, False]  # random weights
    (step,) = session.table("probes").to_dict("records")
    assert (step["from_size"], step["to_size"]) == ("base", "pocket-m")
    assert step["at_request"] == case.requests[SERVED_BEFORE].id
    assert not step["succeeded"]
    assert step["phase"]
    sentence = key_findings.stepped_down(session.table("cases"), session.table("probes"))[0]
    assert "stepped down from base to pocket-m at request" in sentence
    # no result of this pair
    assert standings(session.table("cases"), session.table("trials")) == []


def test_a_race_steps_down_while_loading_but_its_control_does_not(tmp_path: Path) -> None:
    """The memory limit leaves no room for the larger Whisper from the beginning."""
    session = open_session(tmp_path, asr_model="small", trials=1)
    own = arms("sequential/plain", "sequential/empty-cache", "solo/two-requests")
    candidates = [strategy_comparison._candidates(session, arm) for arm in own]
    assert [len(specs) for specs in candidates] == [0, 2, 0]
    fields: dict[str, Any] = {"memory_limit_bytes": 600 * 10**6}
    rows = [
        session.runner.run(
            strategy_comparison.arm_case(
                session, "strategy_comparison", arm, candidates=specs, **fields
            )
        )
        for arm, specs in zip(own, candidates, strict=True)
    ]
    assert [row["status"] for row in rows] == ["oom", "ok", "ok"], [row["reason"] for row in rows]
    assert rows[1]["served_by_model"] == "pocket-m"
    # peaks are those of the pair that served, and not of the one that filled the memory limit
    assert rows[1]["load_peak_bytes"] - rows[1]["process_baseline_bytes"] < 300 * 10**6
    assert rows[1]["margin_bytes"] > 300 * 10**6
    (step,) = session.table("probes").to_dict("records")
    assert step["at_request"] == "load"
    said = key_findings.strategy_comparison(
        session.table("cases"), session.table("trials"), session.table("probes")
    )
    assert any("from small to pocket-m before the first request" in text for text in said)


def test_nothing_that_fits_is_out_of_memory_with_every_step(tmp_path: Path) -> None:
    session = open_session(tmp_path, asr_model="small", fallback_models=["base"], trials=1)
    (arm,) = arms("sequential/empty-cache")
    candidates = strategy_comparison._candidates(session, arm)
    case = strategy_comparison.arm_case(
        session, "strategy_comparison", arm, candidates=candidates, memory_limit_bytes=250 * 10**6
    )
    row = session.runner.run(case)
    assert row["status"] == "oom"
    assert "in phase asr load: not even base fits beside Voxtral" in row["reason"]
    steps = session.table("probes")
    assert list(steps["from_size"]) == ["small", "base"]
    assert list(steps["to_size"].fillna("")) == ["base", ""]
    said = key_findings.stepped_down(session.table("cases"), steps)
    assert said == []  # the reason of the case says it


def fail_in_workers(case: Case, writer: Any, result: Path) -> None:
    """Run the case; its own Whisper fails at the last request."""
    serve, load = Strategy.serve, common.load

    def fail(strategy: Strategy, request: Request, **options: Any) -> CompletedRequest:
        if strategy.asr.spec == case.asr and request.id == case.requests[-1].id:
            raise MemoryError("failed to allocate")
        return serve(strategy, request, **options)

    def look(context: Any, strategy: Any) -> None:
        alive.append([member.alive for member in context.device.tracked_processes])
        load(context, strategy)

    alive: list[list[bool]] = []
    Strategy.serve, common.load = fail, look  # type: ignore[method-assign]
    case_worker.execute(case, writer.with_common(**case.common()), result)
    result.with_suffix(".alive").write_text(json.dumps(alive))


def test_workers_of_the_larger_whisper_are_gone_when_the_smaller_one_is_loaded(
    tmp_path: Path, case_server: CaseServer
) -> None:
    session = open_session(tmp_path, trials=2)
    served(session, *arms("parallel/processes"), fail_in_workers, case_server, tmp_path)
    assert json.loads((tmp_path / "result.alive").read_text()) == [
        [True, True],
        [False, False, True, True],
    ]


def fail_to_restart(case: Case, writer: Any, result: Path) -> None:
    """Run the case; its own Whisper cannot be loaded a second time."""
    load, loaded = Sequential.open, []

    def once(strategy: Sequential) -> None:
        loaded.append(strategy.asr.spec.model)
        if loaded == ["base", "base"]:
            raise MemoryError("failed to allocate")
        load(strategy)

    Sequential.open = once  # type: ignore[method-assign]
    case_worker.execute(case, writer.with_common(**case.common()), result)


def test_a_restart_that_finds_no_memory_steps_down(tmp_path: Path, case_server: CaseServer) -> None:
    # a heap always holds so much unused
    session = open_session(tmp_path, trials=3, restart_fragmentation=0.0001)
    (arm,) = arms("sequential/empty-cache")
    _, trials = served(session, arm, fail_to_restart, case_server, tmp_path)
    assert list(trials["served_by_model"]) == ["base", "pocket-m", "pocket-m"]


def test_a_race_with_memory_enough_stays_on_its_own_whisper(tmp_path: Path) -> None:
    own = {"asr_model": "pocket-m", "asr_weights": "pocket"}
    session = open_session(tmp_path, **own, fallback_models=["pocket-s"], trials=2)
    session.preflight()
    rows = strategy_comparison.run(
        session, arms("sequential/plain", "sequential/batched"), rounds=1
    )
    assert_ok(rows, 3)
    assert (rows[2]["served_by_model"], rows[2]["fallbacks"]) == ("pocket-m", 0)
    assert "served_by_model" not in rows[1]
    assert len(raced(session)) == 4
    assert rows[2]["case_id"] in set(session.table("ledgers")["case_id"])
    assert session.table("probes").empty
    steps = key_findings.stepped_down(session.table("cases"), session.table("probes"))
    assert steps == []


def test_parity_after_a_step_is_about_the_answer_alone() -> None:
    def tokens(*numbers: int) -> Any:
        return type("Said", (), {"tokens": numbers})

    class Pair:
        name = "sequential"
        asr = device = type("On", (), {"kind": "cpu", "device": None})

    Pair.asr.device = Pair.device
    spec: Any = type("Spec", (), {"id": "a", "clip_id": "c"})
    expected = {"answer/a": [1], "asr/c": [2]}
    for answer, stepped, output_matches_reference in [
        ((1,), False, False),
        ((1,), True, None),
        ((9,), True, False),
    ]:
        served: Any = type("S", (), {"answer": tokens(*answer), "transcript": tokens(3)})
        found = serve.parity(expected, Pair(), spec, served, stepped=stepped)  # type: ignore[arg-type]
        assert found is output_matches_reference


def test_only_smaller_sizes_can_be_stepped_down_to() -> None:
    pair = {"asr_model": "small", "asr_weights": "random"}
    for sizes in (["small"], ["medium"], ["tiny", "base"]):
        with pytest.raises(Exception, match="which is no smaller"):
            ParallelParams.from_mapping({**pair, "fallback_models": sizes})
    assert ParallelParams.from_mapping({**pair, "fallback_models": ["base", "pocket-m"]})
