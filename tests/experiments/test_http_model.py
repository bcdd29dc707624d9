"""Arms whose models are servers of their own, asked over HTTP on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from hybridlab.audio import Samples
from hybridlab.config.params import ParallelParams
from hybridlab.devices import CpuDevice, CudaDevice, procfs
from hybridlab.devices.nvml import _handle_of
from hybridlab.devices.process_memory import RssProcessTree
from hybridlab.errors import UnavailableError
from hybridlab.experiments.case import Case
from hybridlab.experiments.plans import load_sweep, strategy_comparison
from hybridlab.models import server_process
from hybridlab.models.http_model import chat_body, command, wav
from hybridlab.models.server_process import Server, Service, beside_weights
from hybridlab.reporting.tables import containers_table
from tests.fake_nvml import FakeNvml
from tests.sessions import (
    VOXTRAL,
    WHISPER,
    arms,
    assert_ok,
    closed,
    later,
    open_session,
    raced,
)
from tests.workers_at_work import alive, wait_until


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_servers_say_what_the_models_say_alone_and_their_cost_is_measured(tmp_path: Path) -> None:
    """Two servers in a race (a closed loop), one server under arrivals (an open one)."""
    session = open_session(tmp_path, ParallelParams, device="cpu")
    apart, together = arms("parallel/separate-containers", "parallel/single-container")
    *_, two = rows = strategy_comparison.run(session, [apart], rounds=1)
    options = {"rate_rps": 4.0, "load": 0.3, "seed": 0}
    one = session.runner.run(
        strategy_comparison.arm_case(
            session, "load_sweep", together, work="poisson_arrivals", options=options
        )
    )
    assert_ok([*rows, one], 3)
    assert (one["servers"], two["servers"]) == (1, 2)
    assert 0 < one["server_overhead_bytes"] < two["server_overhead_bytes"]
    assert one["gateway_bytes"] is None
    assert 10e6 < two["gateway_bytes"] < one["server_overhead_bytes"]
    assert one["idle_bytes"] < two["idle_bytes"]
    raced(session)
    trials = session.table("trials")
    served = later(trials[trials["strategy"] == "parallel"])
    assert len(served) == 4
    assert served["http_overhead_s"].between(0.0001, served["latency_s"]).all()
    behind = served["variant"] == "separate-containers"
    assert served.loc[behind, "gateway_s"].between(0.0001, served["latency_s"][behind]).all()
    assert served.loc[~behind, "gateway_s"].isna().all()
    parts = ["http_overhead_s", "gateway_s", "queue_wait_s", "server_work_s"]
    share = served[parts].sum(axis=1)[behind] / served["latency_s"][behind]
    assert share.between(0.8, 1.0).all()
    (row,) = containers_table(trials, session.table("cases")).to_dict("records")
    assert (row["strategy"], row["servers"]) == ("parallel/separate-containers", 2)
    idle = session.table("ledgers").query("case_id == @two['case_id'] and moment == 'idle'")
    assert closed(idle, two["capacity_bytes"], unattributed=0.02).sum() == two["idle_bytes"]


def test_a_server_that_refuses_says_why() -> None:
    server = Server("asr", ["--only=asr", "--asr-model=huge"], CpuDevice())
    with pytest.raises(UnavailableError, match=r"did not start: .*'huge'"):
        server.enter("asr")
    server.stop()


SPEAKS = (
    "import sys, time; print('http://here serves one', file=sys.stderr, flush=True); time.sleep(60)"
)


COMPUTES = """
import signal, subprocess, sys, time
spin = "import time; print(1, flush=True)\\nwhile time.process_time() < 0.65: pass\\ntime.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)
def end(*_):
    child.kill(); child.wait(); sys.exit()
signal.signal(signal.SIGTERM, end)
print("http://here serves one", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_what_a_server_s_processes_compute_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they have ended: this process' own children then have it."""

    def own_s() -> float:
        times = os.times()
        own = times.children_user + times.children_system
        return own + sum(process.cpu_s for process in device.tracked_processes)

    monkeypatch.setattr(server_process, "PROGRAM", (sys.executable, "-c", COMPUTES))
    device = CpuDevice()
    server = Service("asr", [], device)
    before_s = own_s()
    server.start()
    server.count()  # finds its child
    assert wait_until(lambda: own_s() - before_s > 0.6)  # of 0.65 s, told in ticks of 0.01 s
    running_s = own_s() - before_s
    server.stop()
    assert own_s() - before_s == pytest.approx(running_s, abs=0.15)


METRICS = """# HELP hybridlab_model_bytes Memory
# TYPE hybridlab_model_bytes gauge
hybridlab_model_bytes{reading="used",role="llm"} 1000.0
hybridlab_model_bytes{reading="reserved",role="llm"} 1500.0
hybridlab_model_bytes{reading="load_peak",role="llm"} 1900.0
hybridlab_model_bytes{reading="request_peak",role="llm"} 1600.0
hybridlab_model_bytes{reading="used",role="asr"} 300.0
hybridlab_model_bytes{reading="reserved",role="asr"} 400.0
hybridlab_model_bytes{reading="load_peak",role="asr"} 500.0
hybridlab_model_bytes{reading="request_peak",role="asr"} 350.0
"""


def test_a_server_on_a_gpu_tells_its_allocators_bytes(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML says 9,000 used: 1,200 before this process came, 1,900 reserved by the server's workers;
    this process has a context of 300."""
    import httpx

    asked = httpx.Response(200, text=METRICS, request=httpx.Request("GET", "http://here/metrics"))
    monkeypatch.setattr(httpx, "get", lambda *_, **__: asked)
    monkeypatch.setattr(server_process, "PROGRAM", (sys.executable, "-c", SPEAKS))
    nvml.used = 1_200
    card = CudaDevice(0)
    nvml.used = 1_500
    before = card.memory_owners()
    server = Server("pair", [], card)
    server.enter("llm")
    nvml.used = 9_000
    assert card.used_bytes() == 1_300
    assert card.reserved_bytes() == 1_900
    assert card.peak_bytes() == 2_400  # while it was loaded
    card.reset_peak()
    assert card.peak_bytes() == 1_950  # in requests
    assert card.memory_owners().external["context"] == 9_000 - 1_200 - 1_900
    assert beside_weights(card, [server], before).value == 9_000 - 1_500 - 1_900
    nvml.present = False
    _handle_of.cache_clear()
    without = CudaDevice(0)
    missing = beside_weights(without, [server], without.memory_owners())
    assert missing.value is None
    assert "Driver Not Loaded" in missing.reason
    server.leave("llm")
    assert card.used_bytes() == 0


def test_arms_in_servers_meet_arrivals_at_the_loads_that_are_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = {"arrival_loads": [0.5, 0.9], "container_loads": [0.9]}
    session = open_session(tmp_path, ParallelParams, device="cpu", **loads)
    own = arms("sequential/plain", "parallel/single-container", "parallel/separate-containers")
    for arm, status in zip(own, ("ok", "ok", "skipped"), strict=True):
        case = strategy_comparison.arm_case(session, "strategy_comparison", arm)
        row = {"status": status, "reason": "", "throughput_rps": 4.0}
        session.part.writer.append("cases", {**case.identity(), **row})
    asked: list[Case] = []
    monkeypatch.setattr(session.runner, "run_all", lambda cases: asked.extend(cases) or [])
    load_sweep.measure(session, own, cast(ParallelParams, session.params))
    assert [(case.variant, case.options["load"]) for case in asked] == [
        ("plain", 0.5),
        ("plain", 0.9),
        ("single-container", 0.9),
    ]
    assert asked[1].options == {**asked[2].options, "strategy": asked[1].options["strategy"]}


def test_arms_in_servers_race_in_the_first_rounds_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tmp_path, ParallelParams, device="cpu")
    asked: list[Case] = []
    monkeypatch.setattr(session.runner, "run", lambda case: asked.append(case) or {"status": "ok"})
    own = arms("sequential/plain", "parallel/single-container")
    strategy_comparison.run(session, own, rounds=3, container_rounds=1)
    assert session.runner.total == len(asked)
    assert [case.variant for case in asked] == ["both", "plain", "single-container", *["plain"] * 2]


def test_what_a_server_cannot_be_told_is_refused() -> None:
    with pytest.raises(UnavailableError, match="decoding loop"):
        command(llm=replace(VOXTRAL, decoding="static"), device="cpu")
    assert "--attention=math" in command(llm=replace(VOXTRAL, attention="math"), device="cpu")
    assert "--only=asr" in command(asr=WHISPER, device="cpu")


@pytest.mark.parametrize(
    ("samples", "subtype"),
    [
        (np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32), "FLOAT"),
        (np.array([-1.0, 0.5, 32767 / 32768, 0.0], dtype=np.float32), "PCM_16"),
        (np.array([1.0, 0.5], dtype=np.float32), "FLOAT"),  # one step more than 16 bits have
    ],
)
def test_sound_goes_over_as_it_is(samples: Samples, subtype: str) -> None:
    import io

    import soundfile

    with soundfile.SoundFile(io.BytesIO(wav(samples))) as file:
        assert (file.samplerate, file.subtype) == (16_000, subtype)
        assert np.array_equal(file.read(dtype="float32"), samples)


def test_a_question_is_the_json_that_a_client_would_send() -> None:
    body = json.loads(chat_body("llm", b"RIFF", 'what is "data": "?', max_tokens=7))
    (message,) = body.pop("messages")
    assert body == {"model": "llm", "max_tokens": 7}
    audio, text = message["content"]
    assert audio == {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert text == {"type": "text", "text": 'what is "data": "?'}


def test_a_tree_counts_what_its_processes_hold_and_nothing_once_it_is_gone() -> None:
    """A process that starts another, which takes 100 MB."""
    child = "import time; held = bytearray(b'x') * 10**8; print(1, flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        member = RssProcessTree("tree", process.pid)
        assert procfs.process_tree(process.pid) == member.pids
        assert len(member.pids) == 2
        assert 100e6 < member.used_bytes() < 150e6
        assert member.peak_bytes() >= member.used_bytes()
        assert member.cpu_s > 0
        first, second = member.pids
        member.leave()
        assert member.used_bytes() == member.peak_bytes() == 0
    finally:
        for pid in reversed(procfs.process_tree(process.pid)):
            subprocess.run(["kill", str(pid)], check=False)
        process.wait()
    assert first == process.pid
    assert wait_until(lambda: not alive(second))
