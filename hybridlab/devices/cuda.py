"""A CUDA GPU as a device."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

from hybridlab.devices import procfs
from hybridlab.devices.base import SLACK, AllocatorStats, Device, MemoryOwners, Reading
from hybridlab.devices.driver import ask_driver
from hybridlab.devices.nvml import (
    nvml_energy_j,
    nvml_facts,
    nvml_memory,
    nvml_other_processes,
    nvml_other_processes_bytes,
    nvml_process_bytes,
    nvml_throttle_reasons,
    nvml_used_bytes,
    nvml_utilization,
)
from hybridlab.devices.process_memory import ProcessMemory, ReportedProcess
from hybridlab.devices.visible import Gpu, cuda_in_use, visible_gpus
from hybridlab.errors import UnavailableError

#: Of a card, from which on bfloat16 is computed and not emulated.
BFLOAT16_CAPABILITY = (8, 0)


class CudaDevice(Device):
    """One CUDA GPU: torch's allocator for the peaks, NVML (v2 memory info) for all the rest.

    A question makes no context on the card: in a process that has not used CUDA, torch's allocator
    holds nothing and there is nothing to wait for.
    """

    kind = "cuda"
    allocator = "allocator"
    counts_tensors = True

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.name = f"cuda:{index}"
        self._origin: tuple[Any, float] | None = None
        self._before = _used_before(index)

    @cached_property
    def gpu(self) -> Gpu:
        """What the card is, of those that CUDA shows this process."""
        return visible_gpus()[self.index]

    def title(self) -> str:
        return self.gpu.name

    @property
    def capability(self) -> tuple[int, int]:
        """CUDA's compute capability: (7, 5) for a T4."""
        return self.gpu.capability

    def _capacity_bytes(self) -> int:
        return self.gpu.capacity_bytes

    def free_bytes(self) -> int:
        """As the driver says; what torch's allocator keeps is not free until `release`."""
        try:
            return int(nvml_memory(self.index).free)
        except UnavailableError:  # this process' context tells it, else another's beside it
            cuda = _used_cuda()
            return int(cuda.mem_get_info(self.index)[0] if cuda else ask_driver(str(self.index)))

    def used_bytes(self) -> int:
        own = _allocator_bytes("memory_allocated", self.index)
        return own + sum(member.used_bytes() for member in self.tracked_processes)

    def peak_bytes(self) -> int:
        own = _allocator_bytes("max_memory_allocated", self.index)
        return own + sum(member.peak_bytes() for member in self.tracked_processes)

    def reset_peak(self) -> None:
        if cuda := _used_cuda():
            cuda.reset_peak_memory_stats(self.index)
        for member in self.tracked_processes:
            member.reset_peak()

    def _member(self, name: str, pid: int, release: Callable[[], None]) -> ProcessMemory:
        return ReportedProcess(name, pid, release)

    def native_dtypes(self) -> tuple[str, ...]:
        # torch's is_bf16_supported() counts emulation, and asks the card by making a context
        if self.capability >= BFLOAT16_CAPABILITY:
            return ("float32", "bfloat16", "float16")
        return ("float32", "float16")

    def synchronize(self) -> None:
        if cuda := _used_cuda():
            cuda.synchronize(self.index)

    def release(self) -> None:
        gc.collect()
        if cuda := _used_cuda():
            cuda.empty_cache()
        for member in self.tracked_processes:
            member.release()

    def release_caches(self) -> None:
        if cuda_in_use():
            import torch

            torch.cuda.synchronize()
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()
            torch._C._host_emptyCache()

    def reserved_bytes(self) -> int:
        own = _allocator_bytes("memory_reserved", self.index)
        return own + sum(member.reserved_bytes() for member in self.tracked_processes)

    @property
    def other_processes_bytes(self) -> Reading:
        """Bytes of the card that processes of other families hold: now where the driver says what
        each process holds, else what was in use before this process used the card."""
        now = nvml_other_processes_bytes(self.index, own=self._member_pids())
        if now.value is not None:
            return now
        if self._before.value is None:
            return self._before
        # some of what was there may have gone since
        not_ours = (nvml_used_bytes(self.index).value or 0.0) - self.reserved_bytes()
        return Reading(min(self._before.value, max(0.0, not_ours)))

    def _member_pids(self) -> list[int]:
        return [pid for member in self.tracked_processes for pid in member.pids]

    def external_bytes(self) -> Reading:
        used = nvml_used_bytes(self.index)
        if used.value is None:
            return used
        return Reading(used.value - self._ballast_bytes - self.reserved_bytes())

    def total_used_bytes(self) -> Reading:
        return nvml_used_bytes(self.index)

    def process_bytes(self) -> dict[int, int]:
        return nvml_process_bytes(self.index)

    def facts(self) -> dict[str, Any]:
        return nvml_facts(self.index)

    def peak_reserved_bytes(self) -> int:
        """A worker reports no such peak: what it holds only grows until it releases its cache."""
        own = _allocator_bytes("max_memory_reserved", self.index)
        return own + sum(max(m.reserved_bytes(), m.peak_bytes()) for m in self.tracked_processes)

    def memory_owners(self) -> MemoryOwners:
        """With the slack it sums to the device's capacity, of which neither what the driver keeps
        for itself nor a ballast is a part. `context` is what this process and its workers hold
        beside torch's allocator, `other processes` apart where those are known. `workspaces` are
        cuBLAS' own, in torch's allocator."""
        reserved = self.reserved_bytes()
        inside = _workspaces(self.index)
        outside = {SLACK: reserved - self.used_bytes()}
        try:
            taken = self._capacity_bytes() - self.free_bytes() - self._ballast_bytes
        except UnavailableError:  # what is in use beside torch's allocator is unknown
            return MemoryOwners(inside, outside)
        context, others = max(0, taken - reserved), self.other_processes_bytes.value
        if others is None:
            return MemoryOwners(inside, {**outside, "context and other processes": context})
        known = min(int(others), context)
        return MemoryOwners(
            inside, {**outside, "other processes": known, "context": context - known}
        )

    def stamp(self) -> Any:
        cuda = _used_cuda()
        if cuda is None:
            return super().stamp()
        if self._origin is None:
            origin = cuda.Event(enable_timing=True)
            self.synchronize()
            origin.record()
            self._origin = (origin, time.perf_counter())
        event = cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, stamp: Any) -> float:
        if isinstance(stamp, float):
            return super().seconds(stamp)
        if self._origin is None:
            raise RuntimeError("seconds() was asked of a stamp that this device never made")
        stamp.synchronize()
        origin, at = self._origin
        return at + float(origin.elapsed_time(stamp)) / 1e3

    def other_processes(self) -> Reading:
        return nvml_other_processes(self.index, own=self._member_pids())

    def energy_j(self) -> Reading:
        return nvml_energy_j(self.index)

    def utilization(self, *, since_s: float) -> Reading:
        return nvml_utilization(self.index, since_s=since_s)

    def throttle_reasons(self) -> set[str]:
        return nvml_throttle_reasons(self.index)

    def memory_stats(self) -> AllocatorStats:
        import torch

        stats = torch.cuda.memory_stats(self.index)  # empty before CUDA is used
        outside = self.memory_owners().external
        # the largest hole in torch's segments, or what the driver would still give
        holes = [int(b["size"]) for b in _blocks(self.index) if b["state"] == "inactive"]
        return AllocatorStats(
            allocated_bytes=int(stats.get("allocated_bytes.all.current", 0)),
            reserved_bytes=int(stats.get("reserved_bytes.all.current", 0)),
            external_bytes=outside.get("context"),
            resident_bytes=procfs.resident_bytes(os.getpid()),
            pinned_bytes=int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)),
            peak_active_bytes=int(stats.get("active_bytes.all.peak", 0)),
            peak_reserved_bytes=int(stats.get("reserved_bytes.all.peak", 0)),
            largest_block_bytes=max(self.free_bytes(), *holes, 0),
        )

    def new_stream(self, *, first: bool = False) -> Callable[[], AbstractContextManager[Any]]:
        import torch

        # a lower number is served first; 0 is the default stream's
        stream: Any = torch.cuda.Stream(self.index, priority=-1 if first else 0)  # type: ignore[no-untyped-call]

        def entered() -> AbstractContextManager[Any]:
            return torch.cuda.stream(stream)

        return entered

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        import torch

        stream: Any = torch.cuda.Stream(self.torch_name)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.torch_name))
        try:
            with torch.cuda.stream(stream):
                yield
        finally:  # after a fault, too, nothing writes into a block that is given back
            stream.synchronize()

    def expand_segments(self) -> None:
        import torch

        setting = "expandable_segments:True"
        # private both: torch 2.9 has moved it, and has no public one
        current: Any = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        if current is None:
            current = torch.cuda.memory._set_allocator_settings
        current(setting)


def _used_before(index: int) -> Reading:
    """In use on the card without what this process has there: read anew by each device that comes
    before the process' first use of CUDA, whose context would count as another's after that."""
    if not cuda_in_use():
        _BEFORE[os.getpid(), index] = nvml_used_bytes(index)
    elif (os.getpid(), index) not in _BEFORE:  # the context cannot be told from others' any more
        used, reserved = nvml_used_bytes(index), _allocator_bytes("memory_reserved", index)
        known = None if used.value is None else max(0.0, used.value - reserved)
        _BEFORE[os.getpid(), index] = Reading(known, used.reason)
    return _BEFORE[os.getpid(), index]


#: By process and card; a fork has another number, and so readings of its own.
_BEFORE: dict[tuple[int, int], Reading] = {}


def _used_cuda() -> Any:
    """`torch.cuda` where this process uses it; else None: asked then, it would make a context."""
    return sys.modules["torch"].cuda if cuda_in_use() else None


def _allocator_bytes(reading: str, index: int) -> int:
    """A reading of torch's allocator; 0 in a process that has not used CUDA."""
    cuda = _used_cuda()
    return int(getattr(cuda, reading)(index)) if cuda else 0


def _blocks(index: int) -> list[dict[str, Any]]:
    """Those of torch's segments on this card."""
    cuda = _used_cuda()
    segments = cuda.memory_snapshot() if cuda else ()
    return [b for one in segments if one["device"] == index for b in one["blocks"]]


def _workspaces(index: int) -> dict[str, int]:
    """What cuBLAS keeps for itself in this process' allocator: a block for each stream in which it
    has worked, of a size that no tensor of these models has. Empty where torch is too old to say
    that size."""
    import torch

    size_of = getattr(torch.backends.cuda, "cublas_workspace_size", None)
    if size_of is None or not cuda_in_use():
        return {}
    size: int = size_of()
    used = [block for block in _blocks(index) if block["state"] == "active_allocated"]
    return {"workspaces": sum(size for block in used if block["requested_size"] == size)}
