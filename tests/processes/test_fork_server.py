from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import CaseServer
from tests.workers_at_work import alive, wait_until


def write_pid(path: str) -> None:
    Path(path).write_text(f"{os.getpid()} {'torch' in sys.modules}")


def fail() -> None:
    raise RuntimeError("the reason stands in the log")


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_with_child(path: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    Path(path).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(60)


def use_cuda(path: str) -> None:
    import torch

    before = torch.cuda.is_initialized()
    Path(path).write_text(f"{before} {int(torch.tensor(3, device='cuda'))}")


#: Imports what the case server does and names what of CUDA was called meanwhile.
COUNT = """
import importlib, os
from hybridlab.processes.fork_loop import PRELOAD
import torch

calls = []
def count(owner, name):
    function = getattr(owner, name)
    def counted(*arguments, **options):
        calls.append(name)
        return function(*arguments, **options)
    setattr(owner, name, counted)

for name in dir(torch._C):
    if name.startswith("_cuda_"):
        count(torch._C, name)
for name in ("_lazy_init", "is_available", "device_count", "current_device"):
    count(torch.cuda, name)
for module in PRELOAD:
    importlib.import_module(module)
print(calls, os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"])
if os.fork() == 0:
    os._exit(bool(torch.cuda._is_in_bad_fork()))
print(os.wait()[1])
"""


def test_a_case_runs_in_a_fresh_process_with_the_imports_done(
    case_server: CaseServer, tmp_path: Path
) -> None:
    pids = set()
    for number in range(2):
        path = tmp_path / str(number)
        assert case_server.run(write_pid, str(path)).ok
        pid, torch_is_there = path.read_text().split()
        assert torch_is_there == "True"
        pids.add(int(pid))
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_the_servers_imports_call_nothing_of_cuda() -> None:
    told = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=False
    )
    assert told.stdout.split("\n")[:2] == ["[] 1", "0"], told.stdout + told.stderr


@pytest.mark.gpu
def test_a_case_is_the_first_to_use_cuda(case_server: CaseServer, tmp_path: Path) -> None:
    for number in range(2):
        path = tmp_path / str(number)
        assert case_server.run(use_cuda, str(path)).ok
        assert path.read_text() == "False 3"


def test_a_fault_is_an_exit_code_and_its_reason_is_in_the_log(
    case_server: CaseServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    ended = case_server.run(fail, log=log)
    assert not ended.ok
    assert "the reason stands in the log" in log.read_text()


def test_a_killed_case_is_a_result(case_server: CaseServer) -> None:
    ended = case_server.run(kill_self)
    assert ended.signal == signal.SIGKILL
    assert "SIGKILL" in ended.describe()


def test_a_hung_case_is_stopped_with_its_children(case_server: CaseServer, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    ended = case_server.run(sleep_with_child, str(path), timeout_s=4.0)
    assert ended.timed_out
    assert "timeout_s" in ended.describe()
    pids = [int(pid) for pid in path.read_text().split()]
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


def test_ticks_come_while_a_case_runs(case_server: CaseServer) -> None:
    seen: list[int] = []
    case_server.run(time.sleep, 0.8, on_tick=seen.append)
    assert seen
    assert all(pid != os.getpid() for pid in seen)


def test_a_server_that_is_gone_is_said_so() -> None:
    server = CaseServer()
    server.address = "/nonexistent/address"
    with pytest.raises(UnavailableError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        server.start()
