"""NVIDIA MPS: kernels of several processes on one GPU at the same time, not in slices of time.

Documentation: https://docs.nvidia.com/deploy/mps/. The control daemon is started in the foreground
by the case server, so that it ends with the process that asked for it, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hybridlab.devices.base import Device
from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import Child, shared_server

PROGRAM = "nvidia-cuda-mps-control"
START_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0
TICK_S = 0.05


@contextmanager
def multi_process_service(device: Device) -> Iterator[dict[str, str]]:
    """A control daemon of our own; yields the environment that makes a process its client, to be
    set before that touches CUDA. `UnavailableError` where MPS is not there or may not be started.
    """
    if device.capability is None:
        raise UnavailableError(
            "MPS shares a GPU and the device is a CPU; use the variant processes"
        )
    program = shutil.which(PROGRAM)
    if program is None:
        raise UnavailableError(
            f"{PROGRAM} is not installed (it comes with NVIDIA's driver, often not into a "
            "container); use the variant processes"
        )
    with tempfile.TemporaryDirectory(prefix="hybridlab-mps-") as folder:
        environment = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        log = Path(folder) / "start.log"
        with shared_server().fork(_become_daemon, program, environment, log=log) as daemon:
            _wait_until_it_answers(daemon, program, environment, log)
            try:
                yield environment
            finally:
                _say(program, environment, "quit")
                daemon.wait(END_TIMEOUT_S)


def _become_daemon(program: str, environment: Mapping[str, str]) -> None:
    os.execve(program, [program, "-f"], {**os.environ, **environment})


def _wait_until_it_answers(
    daemon: Child, program: str, environment: Mapping[str, str], log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while _say(program, environment, "get_server_list") != 0:
        ended = daemon.wait(TICK_S)
        if ended is not None:
            said = log.read_text(errors="replace").strip().splitlines()
            why = said[-1] if said else ended.describe("its")
            raise UnavailableError(f"MPS did not start: {why}; use the variant processes")
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"MPS did not answer within {START_TIMEOUT_S:.0f} s; use the variant processes"
            )


def _say(program: str, environment: Mapping[str, str], command: str) -> int:
    """Exit code of a command to the daemon; not 0 where none answers."""
    try:
        ended = subprocess.run(
            [program],
            input=f"{command}\n",
            text=True,
            capture_output=True,
            timeout=END_TIMEOUT_S,
            env={**os.environ, **environment},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1
    return ended.returncode
