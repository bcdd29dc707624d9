"""The fallback chain under real limits: nothing is lost, and nothing of the larger one stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridlab.config.params import LimitsParams
from hybridlab.devices import CpuDevice
from hybridlab.devices.memory_limit import make_memory_limit
from hybridlab.experiments import case_worker
from hybridlab.experiments.case import Case
from hybridlab.experiments.plans import memory_limits
from hybridlab.experiments.session import Session
from hybridlab.experiments.workloads import fallback
from hybridlab.processes.fork_server import CaseServer
from tests import sessions
from tests.sessions import assert_ok

pytestmark = pytest.mark.usefixtures("case_server")

ROOM_BYTES = 256 * 1024


def open_session(tmp_path: Path, *chain: str) -> Session:
    return sessions.open_session(tmp_path, LimitsParams, device="cpu", fallback_chain=list(chain))


def chain_case(session: Session, memory_limit_bytes: int) -> Case:
    return replace(memory_limits._fallback(session), memory_limit_bytes=memory_limit_bytes)


def starve(case: Case, writer: Any, result: Path) -> None:
    """Run the case; after its first request nothing more can be allocated than there is by then."""
    limit, write = make_memory_limit(CpuDevice()), fallback.write_trial

    def write_and_starve(context: Any, spec: Any, served: Any, **columns: Any) -> None:
        write(context, spec, served, **columns)
        if columns["is_first_request"]:
            context.device.release()
            limit.leave(ROOM_BYTES)

    fallback.write_trial = write_and_starve
    case_worker.execute(case, writer.with_common(**case.common()), result)


def test_a_failure_in_mid_stream_steps_down_and_loses_no_request(
    tmp_path: Path, case_server: CaseServer
) -> None:
    session = open_session(tmp_path, "base", "pocket-m")
    case = chain_case(session, 16 * 10**9)
    result, log = tmp_path / "result.json", tmp_path / "log"
    ended = case_server.run(starve, case, session.part.writer, result, log=log)
    assert ended.ok, log.read_text()
    row = {**case.identity(), **json.loads(result.read_text())}
    session.part.writer.append("cases", row)  # rows of cases without one are not read
    assert_ok([row], 1)
    assert (row["served_by_model"], row["fallbacks"]) == ("pocket-m", 1)
    trials = session.table("trials")
    assert list(trials["request_id"]) == [spec.id for spec in case.requests]
    assert list(trials["served_by_model"]) == ["base", "pocket-m", "pocket-m"]
    assert trials["transcript"].isna().tolist() == [True, False, False]  # random weights
    (step,) = session.table("probes").to_dict("records")
    assert (step["from_size"], step["to_size"]) == ("base", "pocket-m")
    assert step["at_request"] == case.requests[1].id
    assert not step["succeeded"]
    assert step["phase"].split()[0] in ("asr", "llm")


def test_nothing_that_fits_is_out_of_memory_with_every_step(tmp_path: Path) -> None:
    session = open_session(tmp_path, "small", "base")
    row = session.runner.run(chain_case(session, 250 * 10**6))
    assert row["status"] == "oom"
    assert "in phase asr load: not even base fits beside Voxtral" in row["reason"]
    steps = session.table("probes")
    assert list(steps["from_size"]) == ["small", "base"]
    assert list(steps["to_size"].fillna("")) == ["base", ""]


def test_memory_enough_keeps_the_first(tmp_path: Path) -> None:
    session = open_session(tmp_path, "pocket-m", "pocket-s")
    row = session.runner.run(chain_case(session, 0))
    assert (row["served_by_model"], row["fallbacks"]) == ("pocket-m", 0)
    assert session.table("probes").empty
    assert row["case_id"] in set(session.table("ledgers")["case_id"])
