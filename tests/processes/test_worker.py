"""Workers: calls, faults, ends. Real processes, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from hybridlab.devices import CpuDevice
from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.devices.process_memory import Report, ReportedProcess
from hybridlab.errors import UnavailableError, WorkerFaultError, WorkerLostError
from hybridlab.processes.fork_server import CaseServer
from hybridlab.processes.worker import Worker, emit
from hybridlab.profiling.contention import ContentionMonitor
from tests.workers_at_work import (
    alive,
    allocate_too_much,
    fill,
    hang,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("case_server")
Answer = TypeVar("Answer")


def run(call: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(asyncio.wait_for(call, 30))


def raise_unavailable() -> None:
    raise UnavailableError("no such thing here")


def raise_key_error() -> None:
    {}["missing"]  # type: ignore[index]


def start_worker_and_hang(path: str) -> None:
    worker = Worker("inner").start()
    Path(path).write_text(f"{os.getpid()} {worker.pid}")
    worker.call(hang, path + ".inner")


def test_calls_run_in_another_process_that_keeps_its_state() -> None:
    with Worker("one") as worker:
        assert worker.call(os.getpid) == worker.pid != os.getpid()
        assert worker.call(fill, 1) == 1
        assert worker.call(fill, 1) == 2
        pid = worker.pid
    assert pid is not None and not alive(pid)
    assert worker.pid is None


def count_aloud(most: int) -> list[bool]:
    """What each `emit` returned."""
    return [emit(number) for number in range(most)]


def talk_until_told_to_stop() -> int:
    told = 0
    while emit(told):
        told += 1
    return told


def test_progress_comes_in_order_before_the_answer() -> None:
    heard: list[int] = []
    with Worker("one") as worker:
        answer = run(worker.call_async(lambda n: heard.append(n) is None, count_aloud, 3))
        assert (answer, heard) == ([True, True, True], [0, 1, 2])
        assert worker.call(count_aloud, 2) == [True, True]  # said to nobody
        assert run(worker.call_async(None, count_aloud, 2)) == [True, True]
        assert heard == [0, 1, 2]


def test_progress_can_be_cancelled_and_comes_again_in_the_next_call() -> None:
    """Also where the wish comes too late for its own call: it is not taken for the next one's."""
    heard: list[int] = []

    def until_third(number: int) -> bool:
        heard.append(number)
        return number < 3

    with Worker("one") as worker:
        assert run(worker.call_async(until_third, talk_until_told_to_stop)) >= 3
        assert heard == [0, 1, 2, 3]
        for _ in range(20):
            once = run(worker.call_async(lambda _: False, count_aloud, 1))
            assert once in ([True], [False])
            assert run(worker.call_async(lambda _: True, count_aloud, 3)) == [True] * 3


def twice(arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """In their own memory."""
    for array in arrays:
        np.multiply(array, 2, out=array)
    return arrays


ARRAYS = {
    "none": [],
    "empty, one, and a view": [np.ones(0), np.ones(1, np.float32), np.arange(9.0)[2:5]],
    "not in one piece": [np.arange(12.0)[::3], np.asfortranarray(np.arange(6.0).reshape(2, 3))],
    "more than the channel holds": [np.arange(1_500_000.0), np.arange(700_000, dtype=np.int16)],
}


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_arrays_come_and_go_as_they_are_and_belong_to_who_has_them(
    arrays: list[np.ndarray[Any, Any]],
) -> None:
    before = [array.copy() for array in arrays]
    with Worker("one") as worker:
        for answer in (
            worker.call(twice, arrays),
            run(worker.call_async(None, twice, arrays)),
        ):
            assert len(answer) == len(arrays)
            for mine, doubled in zip(arrays, answer, strict=True):
                assert mine.dtype == doubled.dtype
                assert np.array_equal(2 * mine, doubled)
                doubled[...] = 0
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays, strict=True))


def test_a_loop_does_other_things_while_a_call_is_at_work() -> None:
    async def scene(worker: Worker, path: Path) -> int:
        call = asyncio.create_task(worker.call_async(None, hang, str(path)))
        while not path.exists():
            await asyncio.sleep(0.01)
        assert not call.done()
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            await call
        assert worker.pid is None
        return pid

    with tempfile.TemporaryDirectory() as folder, Worker("one") as worker:
        assert not alive(run(scene(worker, Path(folder) / "pid")))
        worker.start()
        assert run(worker.call_async(None, fill, 1)) == 1


def test_cancelling_a_call_ends_the_process() -> None:
    async def scene(worker: Worker, path: Path) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await worker.call_async(None, hang, str(path))

    with tempfile.TemporaryDirectory() as folder, Worker("one") as worker:
        pid = worker.pid
        assert pid is not None
        run(scene(worker, Path(folder) / "pid"))
        assert worker.pid is None
        assert wait_until(lambda: not alive(pid))
        with pytest.raises(WorkerLostError, match="start it first"):
            run(worker.call_async(None, os.getpid))


def test_progress_outside_a_worker_is_refused() -> None:
    with pytest.raises(RuntimeError, match="outside a worker"):
        emit("anything")


Call = Callable[..., Any]


def plain_call(worker: Worker, function: Callable[..., Any]) -> Any:
    return worker.call(function)


def async_call(worker: Worker, function: Callable[..., Any]) -> Any:
    return run(worker.call_async(None, function))


@pytest.mark.parametrize("call", [plain_call, async_call])
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (raise_unavailable, UnavailableError, "no such thing here"),
        (allocate_too_much, MemoryError, str(1 << 60)),
        (raise_key_error, WorkerFaultError, r"(?s)raise_key_error.*KeyError: 'missing'"),
    ],
)
def test_faults_come_back_and_leave_the_worker_as_it_is(
    call: Call, function: Call, error: type[Exception], message: str
) -> None:
    with Worker("one") as worker:
        with pytest.raises(error, match=message) as caught:
            call(worker, function)
        failure = out_of_memory(caught.value)
        requested = failure.requested_bytes if failure is not None else None
        assert requested == (1 << 60 if error is MemoryError else None)
        assert worker.call(os.getpid) == worker.pid


def test_a_worker_killed_in_mid_call_is_lost_with_the_signal_and_can_start_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    with Worker("asr") as worker:
        first = worker.pid
        assert first is not None

        def kill() -> None:
            assert wait_until(path.exists)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(WorkerLostError, match=r"worker asr was lost: .*SIGKILL"):
            worker.call(hang, str(path))
        killer.join()
        with pytest.raises(WorkerLostError, match="start it first"):
            worker.call(os.getpid)
        worker.start()
        assert worker.call(os.getpid) == worker.pid != first
    assert not alive(first)


def test_a_worker_that_is_ended_while_idle_is_lost_at_the_next_call() -> None:
    with Worker("one") as worker:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            worker.call(os.getpid)


def test_an_interrupt_in_a_call_leaves_no_worker(tmp_path: Path) -> None:
    """What Ctrl-C does: the call is left, its answer must never be taken for the next one's."""
    path = tmp_path / "pid"
    worker = Worker("one").start()
    pid = worker.pid
    assert pid is not None

    def interrupt() -> None:
        assert wait_until(path.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        worker.call(hang, str(path))
    thread.join()
    assert worker.pid is None
    assert wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_workers_end_with_the_process_that_asked_for_them(
    case_server: CaseServer, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "pids"
    inner = Path(f"{path}.inner")
    if how == "stopped":
        ended = case_server.run(
            start_worker_and_hang, str(path), on_tick=lambda pid: inner.exists()
        )
        assert ended.stopped
    else:
        with case_server.fork(start_worker_and_hang, str(path)) as child:
            assert wait_until(inner.exists)
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait(10) is not None
    pids = [int(pid) for pid in path.read_text().split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def use_processor(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


def test_the_device_counts_a_tracked_worker_until_it_ends() -> None:
    """Known answers: 64 MiB that a worker takes are 64 MiB more in use, and gone with it; its time
    is the case's."""
    size = 64 << 20
    device = CpuDevice()
    with Worker("one") as worker:
        assert worker.pid is not None
        member = device.track_process("one", worker.pid, lambda: None)
        assert member.overhead_bytes < size  # shared libraries are not counted again
        device.reset_peak()
        before = member.used_bytes()
        worker.call(fill, size)
        assert member.peak_bytes() - before == pytest.approx(size, rel=0.05)
        assert member.used_bytes() - before == pytest.approx(size, rel=0.05)
        assert device.used_bytes() > device.memory_owners().in_process["workers"]
        assert device.peak_bytes() >= device.used_bytes() >= member.used_bytes()
        watch = ContentionMonitor(device)
        before_s = watch._now().own_s
        worker.call(use_processor, member.cpu_s + 0.3)
        assert watch._now().own_s - before_s >= 0.2  # the kernel counts in ticks of 10 ms
        assert member.cpu_s > 0
    assert not member.alive
    assert member.used_bytes() == member.peak_bytes() == 0
    assert member.cpu_s > 0


def test_bytes_that_only_the_worker_can_read_are_as_last_reported() -> None:
    member = ReportedProcess("one", os.getpid(), lambda: None)
    member.update(Report(used_bytes=10, peak_bytes=50, reserved_bytes=60))
    assert (member.used_bytes(), member.peak_bytes(), member.reserved_bytes()) == (10, 50, 60)
    member.reset_peak()
    assert member.peak_bytes() == 10
    assert member.wants_reset()
    assert not member.wants_reset()
    member.update(Report(used_bytes=20, peak_bytes=30, reserved_bytes=60))
    assert member.peak_bytes() == 30
    member.ended = True
    assert (member.used_bytes(), member.reserved_bytes()) == (0, 0)
