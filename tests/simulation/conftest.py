"""The stand-in libraries, built once, and programs run over them in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab.errors import UnavailableError
from hybridlab.results.schema import is_time
from hybridlab.simulation import state
from hybridlab.simulation.cuda_torch import CudaTorch, cuda_torch
from hybridlab.simulation.environment import built_libraries
from tests import sessions

#: A notebook's session on a simulated card.
open_session = partial(sessions.open_session, device="simulated:t4", trials=1)


def has_no_times(table: pd.DataFrame) -> bool:
    times = [name for name in table if is_time(str(name))]
    assert times or table.empty
    return bool(table[times].isna().all(axis=None))


PRELUDE = """
import ctypes as c, json, os
from pathlib import Path
from hybridlab.results.schema import is_time
from hybridlab.simulation import state
MIB = 1024**2
STATE = Path(os.environ["HYBRIDLAB_SIMULATED_CARD"])
def say(**values): print(json.dumps(values), flush=True)
def users(): return state.users(STATE)
def held(): return sum(u.context_bytes + u.device_bytes for u in users() if u.pid == os.getpid())
"""
#: The runtime called directly, as torch calls it, without the seconds that importing torch takes.
RUNTIME = """
rt = c.CDLL(os.environ["RUNTIME"])
def pointer(): return c.c_void_p()
def malloc(n):
    p = pointer()
    return rt.cudaMalloc(c.byref(p), c.c_size_t(n)), p
def info():
    free, total = c.c_size_t(), c.c_size_t()
    assert rt.cudaMemGetInfo(c.byref(free), c.byref(total)) == 0
    return free.value, total.value
rt.cudaGetErrorString.restype = rt.cudaGetErrorName.restype = c.c_char_p
for name in ("cudaMemcpy", "cudaMemcpyAsync"):
    getattr(rt, name).argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_int] + (
        [c.c_void_p] if name.endswith("Async") else [])
rt.cudaFree.argtypes = rt.cudaFreeHost.argtypes = rt.cudaHostUnregister.argtypes = [c.c_void_p]
rt.cudaHostRegister.argtypes = [c.c_void_p, c.c_size_t, c.c_uint]
H2D, D2H, D2D = 1, 2, 3
"""


@dataclass(frozen=True)
class Bench:
    """Runs programs over the stand-ins with a state of their own."""

    lib: Path
    site: Path
    folder: Path

    def create(self, *cards: str, **options: Any) -> Path:
        path = self.folder / "card"
        state.create(path, cards, **options)
        return path

    def environment(self, **more: str) -> dict[str, str]:
        here = str(Path(__file__).parents[2])
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "PYTORCH"))}
        return {
            **inherited,
            "HYBRIDLAB_SIMULATED_CARD": str(self.folder / "card"),
            "LD_LIBRARY_PATH": str(self.lib),
            "PYTHONPATH": f"{self.site}:{here}",
            "OMP_NUM_THREADS": "1",
            "RUNTIME": next(self.lib.glob("libcudart.so.*")).name,
            **more,
        }

    def start(self, code: str, **environment: str) -> subprocess.Popen[str]:
        program = PRELUDE + textwrap.dedent(code)
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, **environment: str) -> dict[str, Any]:
        """What the program said last, as JSON."""
        with self.start(code, **environment) as process:
            out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said

    def call(self, code: str, **environment: str) -> dict[str, Any]:
        """`run` with the runtime at hand as `rt`."""
        return self.run(RUNTIME + textwrap.dedent(code), **environment)


@pytest.fixture(scope="session")
def cuda() -> CudaTorch:
    """A CUDA build of torch, fetched at first use; without one nothing can be simulated."""
    try:
        return cuda_torch()
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def site(cuda: CudaTorch) -> Path:
    return cuda.path


@pytest.fixture(scope="session")
def include(cuda: CudaTorch) -> Path:
    return cuda.include


@pytest.fixture(scope="session")
def lib(cuda: CudaTorch) -> Path:
    """The stand-ins, built once."""
    return built_libraries(cuda)


@pytest.fixture
def bench(lib: Path, site: Path, tmp_path: Path) -> Bench:
    made = Bench(lib, site, tmp_path)
    made.create("t4")
    return made


@pytest.fixture
def other() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts processes that only live, to hold memory as strangers do."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
