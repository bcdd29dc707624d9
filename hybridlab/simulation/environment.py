"""What a process needs in its environment so that its torch finds a simulated card.

The variables are for processes that are started with them (the case server, `hybridlab simulate`):
torch and NVML are looked up by name when they are first imported, so that this one stays as it is.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hybridlab.catalog.device_names import simulated_card
from hybridlab.simulation import STATE_VARIABLE, build, state
from hybridlab.simulation.cuda_torch import CudaTorch, cache_folder, cuda_torch


def environment(cards: Sequence[str], folder: Path) -> dict[str, str]:
    """Variables that give a process these cards, whose state lies in `folder` as long as anybody
    uses it. What has to be fetched or built is, at first use, or there is an `UnavailableError`."""
    torch = cuda_torch()
    libraries = built_libraries(torch)
    path = folder / "card"
    state.create(path, cards)
    return {
        STATE_VARIABLE: str(path),
        build.PYTHON_VARIABLE: sys.executable,
        "LD_LIBRARY_PATH": _in_front("LD_LIBRARY_PATH", libraries),
        "PATH": _in_front("PATH", libraries / "bin"),
        "PYTHONPATH": _in_front("PYTHONPATH", torch.path, Path(__file__).parents[2]),
    }


def begin_again(device: str) -> None:
    """Where a device is a simulated card that this process was not started with, run its command
    again in a process that is, in place of this one; the card ends with that process."""
    card = simulated_card(device)
    if card is None:
        return
    prefix = f"hybridlab-card-{os.getpid()}-"  # a process keeps its number when it begins again
    if STATE_VARIABLE in os.environ:
        folder = Path(os.environ[STATE_VARIABLE]).parent
        if folder.name.startswith(prefix):
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    variables = environment([card.name], folder)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **variables})


def built_libraries(torch: CudaTorch) -> Path:
    """The stand-ins for this torch, built at first use."""
    libraries = cache_folder() / f"libraries-{torch.version}-cuda-{torch.cuda}"
    build.build(torch.lib, torch.include, libraries)
    return libraries


def _in_front(variable: str, *folders: Path) -> str:
    """A list of folders with these before what the variable has."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get(variable)])])
