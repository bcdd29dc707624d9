"""Workers: calls, faults, ends. Real processes, real kills."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from hybridlab.devices import CpuDevice
from hybridlab.devices.members import Report, ReportedMember
from hybridlab.devices.oom import out_of_memory
from hybridlab.errors import UnavailableError, WorkerFaultError, WorkerLostError
from hybridlab.processes.isolate import CaseServer
from hybridlab.processes.workers import Worker, tell
from hybridlab.profiling.bystanders import Watch
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
    """What each `tell` returned."""
    return [tell(number) for number in range(most)]


def talk_until_told_to_stop() -> int:
    told = 0
    while tell(told):
        told += 1
    return told


def test_what_a_function_tells_is_heard_in_order_before_its_answer() -> None:
    heard: list[int] = []
    with Worker("one") as worker:
        answer = run(worker.call_async(lambda n: heard.append(n) is None, count_aloud, 3))
        assert (answer, heard) == ([True, True, True], [0, 1, 2])
        assert worker.call(count_aloud, 2) == [True, True]  # said to nobody
        assert run(worker.call_async(None, count_aloud, 2)) == [True, True]
        assert heard == [0, 1, 2]


def test_who_wants_no_more_is_told_no_more_and_the_next_call_is_heard_again() -> None:
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


def test_faults_of_an_async_call_are_those_of_a_plain_one() -> None:
    with Worker("one") as worker:
        with pytest.raises(UnavailableError, match="no such thing here"):
            run(worker.call_async(None, raise_unavailable))
        with pytest.raises(MemoryError):
            run(worker.call_async(None, allocate_too_much))
        assert worker.call(os.getpid) == worker.pid


def test_nobody_listens_to_a_process_that_is_no_worker() -> None:
    with pytest.raises(RuntimeError, match="no worker"):
        tell("anything")


def test_two_workers_work_at_once() -> None:
    with Worker("one") as one, Worker("two") as two:
        assert one.call(fill, 1) == two.call(fill, 1) == 1
        assert one.pid != two.pid


def test_the_lab_s_own_errors_come_back_as_they_are() -> None:
    with Worker("one") as worker:
        with pytest.raises(UnavailableError, match="no such thing here"):
            worker.call(raise_unavailable)
        assert worker.call(os.getpid) == worker.pid


def test_out_of_memory_in_a_worker_is_recognised_with_what_was_asked_for() -> None:
    with Worker("one") as worker:
        with pytest.raises(MemoryError) as caught:
            worker.call(allocate_too_much)
        failure = out_of_memory(caught.value)
        assert failure is not None
        assert failure.requested_bytes == 1 << 60
        assert worker.call(os.getpid) == worker.pid


def test_another_fault_comes_back_with_its_traceback() -> None:
    with (
        Worker("one") as worker,
        pytest.raises(WorkerFaultError, match=r"(?s)raise_key_error.*KeyError: 'missing'"),
    ):
        worker.call(raise_key_error)


def test_a_worker_killed_in_mid_call_is_lost_with_the_signal_and_can_start_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    with Worker("whisper") as worker:
        first = worker.pid
        assert first is not None

        def kill() -> None:
            assert wait_until(path.exists)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(WorkerLostError, match=r"worker whisper was lost: .*SIGKILL"):
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


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_workers_end_with_the_process_that_asked_for_them(
    case_server: CaseServer, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "pids"
    inner = Path(f"{path}.inner")
    if how == "timeout":
        ended = case_server.run(start_worker_and_hang, str(path), timeout_s=1.0)
        assert ended.timed_out
    else:
        with case_server.fork(start_worker_and_hang, str(path)) as child:
            assert wait_until(inner.exists)
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait(10) is not None
    pids = [int(pid) for pid in path.read_text().split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def test_the_device_counts_an_adopted_worker_and_forgets_it_when_it_ends() -> None:
    """A known answer: 64 MiB that a worker takes are 64 MiB more in use, and gone with it."""
    size = 64 << 20
    device = CpuDevice()
    with Worker("one") as worker:
        assert worker.pid is not None
        member = device.adopt("one", worker.pid, lambda: None)
        assert member.overhead_bytes < size  # shared libraries are not counted again
        device.reset_peak()
        before = member.used_bytes()
        worker.call(fill, size)
        assert member.peak_bytes() - before == pytest.approx(size, rel=0.05)
        assert member.used_bytes() - before == pytest.approx(size, rel=0.05)
        assert device.used_bytes() > device.account().inside["workers"]
        assert device.peak_bytes() >= device.used_bytes() >= member.used_bytes()
        assert member.cpu_s > 0
    assert not member.alive
    assert member.used_bytes() == member.peak_bytes() == 0
    assert member.cpu_s > 0


def use_processor(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


def test_processor_time_of_a_worker_is_no_stranger_s() -> None:
    device = CpuDevice()
    with Worker("one") as worker:
        assert worker.pid is not None
        device.adopt("one", worker.pid, lambda: None)
        watch = Watch(device)
        before = watch._now().own_s
        worker.call(use_processor, 0.3)
        assert watch._now().own_s - before >= 0.2  # the kernel counts in ticks of 10 ms


def test_bytes_that_only_the_worker_can_read_are_as_it_last_said() -> None:
    member = ReportedMember("one", os.getpid(), lambda: None)
    member.hear(Report(used_bytes=10, peak_bytes=50, reserved_bytes=60))
    assert (member.used_bytes(), member.peak_bytes(), member.reserved_bytes()) == (10, 50, 60)
    member.reset_peak()
    assert member.peak_bytes() == 10
    assert member.wants_reset()
    assert not member.wants_reset()
    member.hear(Report(used_bytes=20, peak_bytes=30, reserved_bytes=60))
    assert member.peak_bytes() == 30
    member.ended = True
    assert (member.used_bytes(), member.reserved_bytes()) == (0, 0)
