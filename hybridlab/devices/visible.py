"""The GPUs that CUDA shows this process, in its order, found without making a context on any."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from hybridlab.devices.driver import ask_driver
from hybridlab.errors import UnavailableError
from hybridlab.simulation.cuda_torch import cuda_version

ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU, or an instance of a divided one, as NVML or CUDA's driver tells it."""

    uuid: str
    name: str
    capacity_bytes: int  # without what the driver reserves
    capability: tuple[int, int]
    cuda_version: int  # the highest that its driver supports: 12040 for 12.4
    divided: bool = False  # a whole card of which CUDA shows only instances (MIG)


def cuda_in_use() -> bool:
    """Whether torch has begun to use CUDA in this process, which then has a context."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def visible_gpus() -> tuple[Gpu, ...]:
    """Those of `CUDA_VISIBLE_DEVICES`: `cuda:N` is the Nth. `UnavailableError` where neither NVML
    nor CUDA's driver can be asked."""
    found = _visible(os.environ.get(VISIBLE_VARIABLE), os.environ.get(ORDER_VARIABLE, ""))
    if isinstance(found, str):
        raise UnavailableError(found)
    return found


def gpu_count() -> int:
    """How many GPUs CUDA shows; 0 also where nothing can be asked."""
    try:
        return len(visible_gpus())
    except UnavailableError:
        return 0


@cache
def _visible(wanted: str | None, order: str) -> tuple[Gpu, ...] | str:
    """The visible GPUs, or why they are unknown."""
    reasons = []
    try:
        chosen = chosen_gpus(nvml_gpus(), wanted, order)
        if chosen is not None:
            return chosen
    except UnavailableError as error:
        reasons.append(str(error))
    try:
        return tuple(Gpu(**{**one, "capability": tuple(one["capability"])}) for one in ask_driver())
    except UnavailableError as error:
        return "; ".join([*reasons, str(error)])


def chosen_gpus(
    known: Sequence[Gpu], wanted: str | None, order: str = ""
) -> tuple[Gpu, ...] | None:
    """Of these in the order of the bus, what CUDA shows where `CUDA_VISIBLE_DEVICES` is `wanted`;
    None where only CUDA can tell: it puts unlike cards in the order of their speed unless told
    otherwise, and divides what is divided.

    https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    """
    words = [str(number) for number in range(len(known))] if wanted is None else wanted.split(",")
    by_number = any(word.strip().isdigit() for word in words)
    unlike = len({gpu.name for gpu in known}) > 1 and order != "PCI_BUS_ID"
    if any(gpu.divided for gpu in known) or "MIG-" in (wanted or "") or (unlike and by_number):
        return None
    chosen: list[Gpu] = []
    for word in map(str.strip, words):
        if word.isdigit():
            found = list(known[int(word) : int(word) + 1])
        else:
            found = [gpu for gpu in known if word.startswith("GPU-") and gpu.uuid.startswith(word)]
        if len(found) != 1:  # what comes after the first that is not there is not shown either
            break
        if found[0] in chosen:
            return ()
        chosen += found
    return tuple(chosen)


def nvml_gpus() -> list[Gpu]:
    """All of the machine, in the order of the bus; `UnavailableError` without NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        if count > 1:
            handles.sort(key=lambda handle: str(pynvml.nvmlDeviceGetPciInfo(handle).busId))
        return [_nvml_gpu(pynvml, handle) for handle in handles]
    except pynvml.NVMLError as error:
        raise UnavailableError(f"no NVML: {error}") from None


def _nvml_gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    try:
        divided = bool(nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except nvml.NVMLError:  # a card that cannot be divided
        divided = False
    return Gpu(
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        capacity_bytes=int(memory.total) - int(memory.reserved),
        capability=(int(major), int(minor)),
        cuda_version=int(nvml.nvmlSystemGetCudaDriverVersion_v2()),
        divided=divided,
    )


def cuda_lack() -> str:
    """Why torch can use no GPU here; '' where it can. torch, which takes seconds, is imported only
    where there is one."""
    installed = distribution("torch")
    built_for = cuda_version(Path(str(installed.locate_file(""))))
    if built_for is None:
        return f"torch {installed.version} is built without CUDA"
    if "torch" in sys.modules and sys.modules["torch"].cuda._is_in_bad_fork():
        return "CUDA was used by the process that this one was forked from, and cannot be here"
    try:
        gpus = visible_gpus()
    except UnavailableError as error:
        return str(error)
    if not gpus:
        return f"CUDA shows no GPU here ({VISIBLE_VARIABLE}={os.environ.get(VISIBLE_VARIABLE)!r})"
    major, minor = divmod(gpus[0].cuda_version // 10, 100)
    if major < int(built_for.partition(".")[0]):
        return f"the driver supports CUDA {major}.{minor}, torch is built for CUDA {built_for}"
    import torch

    # torch.cuda.get_arch_list() would start CUDA's driver here where there is no NVML
    flags: Any = torch._C._cuda_getArchFlags()
    return _kernel_lack(gpus[0], str(flags or "").split())


def _kernel_lack(gpu: Gpu, architectures: Sequence[str]) -> str:
    """torch holds machine code (`sm_75`), good for its generation from that on, or code that the
    driver translates (`compute_90`), good for all later ones."""
    for name in architectures:
        kind, _, number = name.partition("_")
        made_for = divmod(int("".join(filter(str.isdigit, number))), 10)
        if made_for <= gpu.capability and (kind != "sm" or made_for[0] == gpu.capability[0]):
            return ""
    major, minor = gpu.capability
    return (
        f"{gpu.name} has compute capability {major}.{minor}, for which this torch has no code "
        f"({', '.join(architectures)})"
    )
