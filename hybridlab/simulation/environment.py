"""What a process needs in its environment so that its torch finds a simulated card.

The variables are for processes that are started with them (the case server, `hybridlab simulate`):
torch and NVML are looked up by name when they are first imported, so that this one stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hybridlab.simulation import STATE_VARIABLE, build, state
from hybridlab.simulation.cuda_torch import Tell, cache_folder, cuda_torch


def environment(cards: Sequence[str], folder: Path, *, tell: Tell) -> dict[str, str]:
    """Variables that give a process these cards, whose state lies in `folder` as long as anybody
    uses it. What has to be fetched or built is, at first use; `UnavailableError` where it cannot."""
    torch = cuda_torch(tell=tell)
    libraries = cache_folder() / f"libraries-{torch.version}-cuda-{torch.cuda}"
    build.build(torch.lib, torch.include, libraries)
    path = folder / "card"
    state.create(path, cards)
    package = Path(__file__).parents[2]
    variables = {STATE_VARIABLE: str(path), "LD_LIBRARY_PATH": str(libraries)}
    variables["PYTHONPATH"] = os.pathsep.join(map(str, filter(None, [torch.path, package])))
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH"):
        if os.environ.get(name):
            variables[name] += os.pathsep + os.environ[name]
    return variables
