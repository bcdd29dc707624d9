"""Parallel variants over the pocket pair: same texts, survived faults, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hybridlab import catalog
from hybridlab.audio import load_clips, read_audio
from hybridlab.config.params import ParallelParams
from hybridlab.devices import CpuDevice, CudaDevice, resolve_device
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import UnavailableError, WorkerLostError
from hybridlab.experiments import case_worker
from hybridlab.experiments.placement import Site, asr_spec, place
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.workloads import common
from hybridlab.models import ModelSpec
from hybridlab.models.worker_model import WorkerRecognizer
from hybridlab.processes.fork_server import ADDRESS_VARIABLE, CaseServer
from hybridlab.strategies import Request, Strategy, make_strategy
from tests.sessions import VOXTRAL, WHISPER, arms, assert_ok, open_session, raced
from tests.strategies.test_strategies import FakeVoxtral, FakeWhisper
from tests.watcher import Watcher
from tests.workers_at_work import (
    alive,
    descendants,
    die_when_decoding,
    run_out_in_requests,
    wait_until,
)

variant_of = partial(catalog.variant, "parallel")
pytestmark = pytest.mark.usefixtures("case_server")


class Gpu(CpuDevice):
    """A device that is no CPU, as far as anyone asks."""

    is_host = False

    def __init__(self) -> None:
        self.entered: list[tuple[bool, str]] = []

    def new_stream(self, *, first: bool = False) -> Callable[[], AbstractContextManager[Any]]:
        @contextmanager
        def stream() -> Iterator[None]:
            main = threading.current_thread() is threading.main_thread()
            self.entered.append((first, "main" if main else "other"))
            yield

        return stream


@pytest.fixture(scope="module")
def request_() -> Request:
    clip = load_clips("")[0]
    question = clip.questions[0].text
    samples = read_audio(Path(clip.path))
    return Request(id="one", samples=samples, question=question, max_new_tokens=12)


@contextmanager
def opened(variant: str) -> Iterator[Strategy]:
    device = CpuDevice()
    with ExitStack() as stack:
        models = place(variant_of(variant), WHISPER, VOXTRAL, Site(device, stack))
        strategy = make_strategy("parallel", variant, asr=models[0], llm=models[1])
        strategy.open()
        yield strategy


@pytest.fixture(scope="module")
def said(case_server: object, request_: Request) -> tuple[str, str]:
    """Transcript and answer by both in one process."""
    with opened("threads") as strategy:
        served = strategy.serve(request_)
        strategy.close()
    assert served.transcript.text
    assert served.answer.text
    return served.transcript.text, served.answer.text


def test_workers_say_the_same_and_their_phases_lie_on_our_clock(
    request_: Request, said: tuple[str, str]
) -> None:
    with opened("processes") as strategy:
        pids = [model.worker.pid for model in strategy.models]  # type: ignore[attr-defined]
        served = strategy.serve(request_)
        assert (served.transcript.text, served.answer.text) == said
        assert {(span.role, span.phase) for span in served.spans} >= {
            ("asr", "encode"),
            ("asr", "decode"),
            ("llm", "encode"),
            ("llm", "decode"),
        }
        for span in served.spans:
            if span.phase != "load":
                assert served.start_s <= span.start_s <= span.end_s <= served.end_s
        assert (strategy.llm.weights_bytes() or 0) > 9_000_000
        strategy.close()
        assert not any(model.loaded for model in strategy.models)
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("role", ["asr", "llm"])
def test_a_worker_killed_in_mid_request_is_replaced_and_the_request_answered(
    request_: Request, said: tuple[str, str], role: str
) -> None:
    with opened("processes") as strategy:
        victim: Any = getattr(strategy, role)
        first = victim.worker.pid
        victim.worker.call(die_when_decoding)
        served = strategy.serve(request_)
        assert (served.transcript.text, served.answer.text) == said
        assert victim.restarts == 1
        assert sum(model.restarts for model in strategy.models) == 1
        phases = [span.phase for span in served.spans if span.role == victim.name]
        assert "lost" in phases and "restart" in phases
        assert not alive(first)
        again = strategy.serve(request_)
        assert (again.transcript.text, again.answer.text) == said
        assert victim.restarts == 1


def test_a_request_whose_worker_is_lost_twice_is_reported_lost(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("processes") as strategy:
        victim = strategy.asr
        assert isinstance(victim, WorkerRecognizer)
        load = victim.load

        def load_and_arm() -> None:
            load()
            victim.worker.call(die_when_decoding)

        monkeypatch.setattr(victim, "load", load_and_arm)
        victim.worker.call(die_when_decoding)
        with pytest.raises(WorkerLostError, match=r"worker asr was lost: .*SIGKILL"):
            strategy.serve(request_)
        assert victim.restarts == 1
        assert not victim.loaded
        assert strategy.llm.loaded
        strategy.close()


@pytest.mark.parametrize("role", ["asr", "llm"])
def test_out_of_memory_in_one_worker_leaves_no_thread_and_the_other_idle(
    request_: Request, said: tuple[str, str], role: str
) -> None:
    before = threading.active_count()
    with opened("processes") as strategy:
        victim: Any = getattr(strategy, role)
        seen: list[str] = []
        victim.on_phase = seen.append
        victim.worker.call(run_out_in_requests)
        with pytest.raises(MemoryError) as caught:
            strategy.serve(request_)
        failure = out_of_memory(caught.value)
        assert failure is not None and failure.requested_bytes == 1 << 60
        assert seen == [f"{victim.name} encode"]
        assert victim.restarts == 0
        strategy.close()
        assert threading.active_count() == before


def test_a_failure_in_a_thread_leaves_no_thread(request_: Request) -> None:
    log: list[tuple[str, str]] = []
    whisper = FakeWhisper(log)
    strategy = make_strategy("parallel", "threads", asr=whisper, llm=FakeVoxtral(log))
    before = threading.active_count()
    strategy.open()
    whisper.unload()  # its next request fails
    with pytest.raises(AssertionError):
        strategy.serve(request_)
    strategy.close()
    assert threading.active_count() == before
    assert ("llm", "answer") in log


def test_each_model_has_its_own_stream_and_whisper_s_comes_first(request_: Request) -> None:
    device, log = Gpu(), []  # type: ignore[var-annotated]
    models = FakeWhisper(log), FakeVoxtral(log)
    for model in models:
        model.device = device
    strategy = make_strategy("parallel", "streams", asr=models[0], llm=models[1])
    strategy.open()
    strategy.serve(request_)
    assert sorted(device.entered) == [(False, "main"), (True, "other")]


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("streams", "a CPU has no streams; use"),
        ("processes-mps", "the device is a CPU; use"),
        ("whisper-on-cpu", "the device is the CPU already"),
        ("processes", "limits one process"),
    ],
)
def test_what_the_device_lacks_is_said_with_what_to_do(variant: str, reason: str) -> None:
    device = CpuDevice()
    if variant == "processes":
        device.set_memory_limit(1 << 30)
    with ExitStack() as stack, pytest.raises(UnavailableError, match=reason):
        asr, llm = place(variant_of(variant), WHISPER, VOXTRAL, Site(device, stack))
        make_strategy("parallel", variant, asr=asr, llm=llm).open()


def test_whisper_on_the_host_is_made_there_in_a_dtype_of_the_host() -> None:
    gpu = Gpu()
    half = asr_spec(variant_of("whisper-on-cpu"), WHISPER, gpu)
    assert half.dtype == "float32"
    with ExitStack() as stack:
        whisper, voxtral = place(variant_of("whisper-on-cpu"), half, VOXTRAL, Site(gpu, stack))
    assert whisper is not None
    assert whisper.device.is_host
    assert voxtral.device is gpu


def test_ctranslate2_changes_the_backend_and_keeps_a_dtype_that_it_has() -> None:
    cpu, gpu = CpuDevice(), Gpu()
    assert asr_spec(variant_of("ctranslate2"), WHISPER, cpu).backend == "faster-whisper"
    for dtype, device, expected in (
        ("float32", cpu, "float32"),
        ("bfloat16", cpu, "float32"),
        ("bfloat16", gpu, "float16"),
        ("float16", gpu, "float16"),
    ):
        spec = ModelSpec(model="tiny", backend="transformers", weights="hub", dtype=dtype)
        assert asr_spec(variant_of("ctranslate2"), spec, device).dtype == expected
    assert asr_spec(variant_of("threads"), WHISPER, cpu) is WHISPER


def test_a_race_of_the_variants_passes_the_parity_gate_each_with_its_own_whisper(
    tmp_path: Path,
) -> None:
    pytest.importorskip("faster_whisper")
    session = open_session(tmp_path, ParallelParams)
    rows = strategy_comparison.run(
        session, arms("parallel/processes", "parallel/ctranslate2"), rounds=1
    )
    assert_ok(rows, 4)
    assert [row["asr_backend"] for row in rows[2:]] == ["openai-whisper", "faster-whisper"]
    assert rows[2]["worker_restarts"] == 0
    assert len(raced(session)) == 4


def serve_in_workers(path: str) -> None:
    """As a case does, whose own process computes nothing."""
    import torch

    device = resolve_device("cuda")
    assert isinstance(device, CudaDevice)
    device.reset_peak()
    clip = load_clips("")[0]
    asked = Request(
        id="one", samples=read_audio(Path(clip.path)), question="What?", max_new_tokens=4
    )
    with ExitStack() as stack:
        models = place(variant_of("processes"), WHISPER, VOXTRAL, Site(device, stack))
        strategy = make_strategy("parallel", "processes", asr=models[0], llm=models[1])
        strategy.open()
        device.synchronize()
        served = strategy.serve(asked)
        device.release()
        found = {
            "text": served.transcript.text,
            "peak": device.peak_bytes(),
            "reserved": device.reserved_bytes(),
            "other processes": device.other_processes_bytes.value,
            "neighbours": device.other_processes().value,
            "touched": torch.cuda.is_initialized(),
        }
    Path(path).write_text(json.dumps(found))


@pytest.mark.gpu
def test_workers_on_a_card_answer_and_their_case_holds_nothing_of_it(
    case_server: CaseServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ended = case_server.run(serve_in_workers, str(tmp_path / "found"), log=log)
    assert ended.ok, log.read_text()
    found = json.loads((tmp_path / "found").read_text())
    assert found["text"]
    assert found["peak"] > 0
    assert found["reserved"] > 0
    assert not found["touched"]
    assert found["neighbours"] in (0, None)  # a container may hide who computes


@pytest.mark.slow
def test_a_case_whose_worker_is_killed_goes_on_and_says_so(tmp_path: Path) -> None:
    session = open_session(tmp_path, ParallelParams, trials=20)
    trials = session.part.folder / "trials.jsonl"
    killed: list[int] = []

    def kill_one(pid: int) -> bool:
        if killed or not trials.exists():
            return False
        server = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        killed.append(min(descendants(server) - {pid}))
        os.kill(killed[0], signal.SIGKILL)
        return False

    (alone,) = strategy_comparison.run(session, [], rounds=0)
    texts = strategy_comparison._texts_path(session, alone["asr_backend"])
    case = strategy_comparison._race_case(session, *arms("parallel/processes"), 0, texts)
    trials.unlink()
    session.runner.view = Watcher(tmp_path, tick=kill_one)
    row = session.runner.run(case)
    assert killed
    assert_ok([row], 1)
    assert row["worker_restarts"] == 1
    assert len(raced(session)) == 20
    assert {"restart", "lost"} <= set(session.table("spans")["phase"])


def test_out_of_memory_in_a_worker_is_the_result_of_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(tmp_path, ParallelParams)
    load = common.load
    workers: list[Any] = []

    def load_and_arm(context: Any, strategy: Any) -> None:
        load(context, strategy)
        workers.extend(model.worker for model in strategy.models)
        strategy.asr.worker.call(run_out_in_requests)

    monkeypatch.setattr(common, "load", load_and_arm)
    result = tmp_path / "result.json"
    case = session.case("strategy_comparison", strategy="parallel", variant="processes", warmup=0)
    case_worker.execute(case, session.part.writer.with_common(**case.common()), result)
    row = json.loads(result.read_text())
    assert row["status"] == "oom"
    assert row["reason"].startswith("in phase asr encode: ")
    assert row["requested_bytes"] == 1 << 60
    assert len(workers) == 2
    assert all(worker.pid is None for worker in workers)


RACE = """
import sys
from pathlib import Path
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.session import Session
from hybridlab.config.params import ParallelParams

values = {"headless": True, "output_dir": sys.argv[1], "max_other_cpu_share": 1.0, "trials": 500}
session = Session.open(ParallelParams.from_mapping(values))
try:
    strategy_comparison.attribute_peak(session, strategy_comparison.CONTROL)
    case = session.case("strategy_comparison", strategy="parallel", variant="processes")
    session.runner.run(case)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_ctrl_c_in_a_race_ends_its_case_and_workers(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != ADDRESS_VARIABLE}
    session = subprocess.Popen(
        [sys.executable, "-c", RACE, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert session.stdout is not None
    try:
        # the server, the case and its two workers
        assert wait_until(lambda: len(descendants(session.pid)) == 4, timeout_s=60)
        session.send_signal(signal.SIGINT)
        assert session.stdout.readline() == "interrupted\n"
        assert wait_until(lambda: len(descendants(session.pid)) == 1)  # the server waits for more
    finally:
        server = descendants(session.pid)
        session.communicate()
    assert wait_until(lambda: not any(alive(pid) for pid in server))


@pytest.mark.gpu
def test_streams_leave_nothing_behind_them(request_: Request, said: tuple[str, str]) -> None:
    import torch

    from hybridlab.devices.cuda import CudaDevice

    device = CudaDevice()
    device.release_caches()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    with ExitStack() as stack:
        models = place(variant_of("streams"), WHISPER, VOXTRAL, Site(device, stack))
        strategy = make_strategy("parallel", "streams", asr=models[0], llm=models[1])
        strategy.open()
        served = strategy.serve(request_)
        assert (served.transcript.text, served.answer.text) == said
        strategy.close()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
