"""NVIDIA MPS, with a program of its name that does as the real one's manual says."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from hybridlab.devices import CpuDevice
from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import CaseServer
from hybridlab.processes.mps import PROGRAM, multi_process_service
from hybridlab.processes.worker import Worker
from tests.workers_at_work import alive, hang, wait_until

pytestmark = pytest.mark.usefixtures("case_server")

#: `-f` serves in the foreground until told to quit; without it commands are read from stdin. Its
#: second line is a command to sh and a string to Python: a shebang cannot hold a path with a space.
DAEMON = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
control, quit = folder / "control", folder / "quit"
if sys.argv[1:] == ["-f"]:
    pathlib.Path({pids!r}).write_text(str(os.getpid()))
    control.touch()
    while not quit.exists():
        time.sleep(0.02)
    sys.exit(0)
if not control.exists():
    sys.exit("Cannot find MPS control daemon process")
if sys.stdin.read().strip() == "quit":
    quit.touch()
"""


class Gpu(CpuDevice):
    capability = (7, 5)
    name = "cuda:0"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    program = folder / PROGRAM
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def set_variables(environment: dict[str, str]) -> None:
    os.environ.update(environment)


def serve_in(folder: str, path: str) -> None:
    """A case on a machine that has the program in this folder; it hangs while MPS runs."""
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    with multi_process_service(Gpu()):
        hang(path)


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working daemon; the file will hold its process id."""
    path = tmp_path / "daemon"
    install(monkeypatch, tmp_path, DAEMON.format(python=sys.executable, pids=str(path)))
    return path


def test_a_daemon_of_its_own_is_started_and_ended(pids: Path) -> None:
    with multi_process_service(Gpu()) as environment:
        pid = int(pids.read_text())
        assert alive(pid)
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        assert folder.is_dir()
        assert os.environ.get("CUDA_MPS_PIPE_DIRECTORY") is None  # this process is no client
        with Worker("one") as worker:
            worker.call(set_variables, environment)
            assert worker.call(os.getenv, "CUDA_MPS_PIPE_DIRECTORY") == str(folder)
    assert not alive(pid)
    assert not folder.exists()


def test_the_daemon_ends_after_a_fault_inside(pids: Path) -> None:
    with pytest.raises(KeyError), multi_process_service(Gpu()):
        raise KeyError("in_process")
    assert not alive(int(pids.read_text()))


def test_the_daemon_ends_with_a_case_that_is_killed(
    case_server: CaseServer, pids: Path, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    with case_server.fork(serve_in, str(tmp_path), str(ready)) as child:
        assert wait_until(ready.exists)
        os.kill(child.pid, 9)
        assert child.wait(10) is not None
    assert wait_until(lambda: not alive(int(pids.read_text())))


def test_what_is_lacking_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match="a CPU; use"), multi_process_service(CpuDevice()):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="not installed"), multi_process_service(Gpu()):
        pass
    refusal = "#!/bin/sh\necho 'MPS is not permitted here' >&2\nexit 1\n"
    install(monkeypatch, tmp_path, refusal)
    with pytest.raises(UnavailableError, match="did not start: MPS is not permitted here"):
        multi_process_service(Gpu()).__enter__()
