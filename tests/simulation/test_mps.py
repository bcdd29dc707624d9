from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Say = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def program(lib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "a folder" / ("long" * 40)))
    return lib / "bin" / "nvidia-cuda-mps-control"


@pytest.fixture
def say(program: Path) -> Iterator[Say]:
    def send(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program], input=f"{command}\n", text=True, capture_output=True, check=False
        )

    yield send
    send("quit")


def test_the_daemon_answers_until_it_is_told_to_quit(program: Path, say: Say) -> None:
    assert say("get_server_list").returncode == 1
    subprocess.run([program, "-d"], check=True, capture_output=True)
    assert (say("get_server_list").returncode, say("get_server_list").stdout) == (0, "")
    assert say("dance").stdout == "Unknown command: dance\n"
    assert subprocess.run([program, "-f"], capture_output=True, check=False).returncode == 1
    assert say("quit").returncode == 0
    assert say("get_server_list").stdout == "Cannot find MPS control daemon process\n"
    assert not list(Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]).iterdir())


def test_a_dead_daemons_socket_is_replaced(program: Path, say: Say) -> None:
    with subprocess.Popen([program, "-f"]) as daemon:
        while say("get_server_list").returncode:
            assert daemon.poll() is None
        daemon.kill()
    assert say("get_server_list").returncode == 1
    subprocess.run([program, "-d"], check=True)
    assert say("get_server_list").returncode == 0
