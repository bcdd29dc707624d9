"""The host as a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hybridlab.devices import procfs
from hybridlab.devices.base import UNTRACKED, AllocatorStats, Device, MemoryOwners, Reading
from hybridlab.devices.process_memory import ProcessMemory, RssProcess
from hybridlab.devices.system_info import machine
from hybridlab.errors import UnavailableError
from hybridlab.units import GB, KIB, format_bytes

#: The size from which a block is mapped by itself where bytes are counted exactly.
EXACT_BLOCK_BYTES = 1024 * KIB
#: What a copy of weights must leave of the host: one that is full ends the machine, not the case.
HOST_RESERVE_BYTES = 2 * GB
KEEP_NO_COPY = (
    "choose a smaller Whisper or the variant reload-cached, which keeps no copy on the host"
)


class CpuDevice(Device):
    """The host: memory as Linux counts it for this process, with a resettable peak."""

    name = kind = "cpu"
    allocator = "rss"
    is_host = True
    #: What malloc has free but gave back when it was last asked to: no memory of this process.
    _given_back_bytes = 0

    def title(self) -> str:
        return str(machine()["processor"])

    def _capacity_bytes(self) -> int:
        limits = [int(psutil.virtual_memory().total)]
        for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            try:
                text = Path(path).read_text().strip()
            except OSError:
                continue  # that cgroup version is not mounted here
            if text.isdigit():
                limits.append(int(text))
        return min(limits)

    def free_bytes(self) -> int:
        free = min(int(psutil.virtual_memory().available), self._capacity_bytes())
        return min(free, self.capacity_bytes() - self.used_bytes()) if self.memory_limited else free

    def used_bytes(self) -> int:
        own = int(os.pread(procfs.statm(os.getpid()), 128, 0).split()[1]) * procfs.page_bytes()
        return own + sum(member.used_bytes() for member in self.tracked_processes)

    def peak_bytes(self) -> int:
        own = procfs.status_bytes("VmHWM")
        return max(own + sum(m.peak_bytes() for m in self.tracked_processes), self.used_bytes())

    def reset_peak(self) -> None:
        procfs.reset_peak("self")
        for member in self.tracked_processes:
            member.reset_peak()

    def _member(self, name: str, pid: int, release: Callable[[], None]) -> ProcessMemory:
        return RssProcess(name, pid, release)

    def native_dtypes(self) -> tuple[str, ...]:
        import torch

        # whether oneDNN has bfloat16 kernels for this processor
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return ("float32", "bfloat16")
        return ("float32",)

    @property
    def compute_threads(self) -> int:
        """Threads for each of the models that compute at the same time: two pools of all the cores
        would wait for each other at every barrier."""
        import torch

        return max(1, torch.get_num_threads() // self.concurrent_models)

    @contextmanager
    def compute_slot(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()  # torch keeps it for each thread
        torch.set_num_threads(self.compute_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def release(self) -> None:
        gc.collect()
        procfs.trim_heap()
        if (heap := procfs.heap()) is not None:
            self._given_back_bytes = heap.free_bytes
        for member in self.tracked_processes:
            member.release()

    def set_memory_limit(self, n_bytes: int | None, *, ballast_bytes: int = 0) -> None:
        self._at_start = self.used_bytes()
        super().set_memory_limit(n_bytes, ballast_bytes=ballast_bytes)

    def external_bytes(self) -> Reading:
        if self.memory_limited:  # the limit is this process' own
            return Reading(0.0)
        return Reading((self.total_used_bytes().value or 0.0) - self.used_bytes())

    def total_used_bytes(self) -> Reading:
        info = psutil.virtual_memory()
        return Reading(float(info.total - info.available))

    def count_exactly(self) -> None:
        super().count_exactly()
        # by default glibc keeps freed blocks of up to 32 MiB for later, which reads as in use
        procfs.set_mmap_threshold(EXACT_BLOCK_BYTES)

    def memory_owners(self) -> MemoryOwners:
        """`libraries`: resident pages of mapped files; `free heap`: what malloc has got free since
        its last release; `workers`: what members hold without their work: their own interpreters'
        pages and copies of pages that they had inherited. Children that no member counts are
        outside."""
        inside = {"libraries": procfs.status_bytes("RssFile")}
        heap = procfs.heap()
        if heap is not None:
            inside["free heap"] = max(0, heap.free_bytes - self._given_back_bytes)
        if self.tracked_processes:
            here = [member for member in self.tracked_processes if member.alive]
            inside["libraries"] += sum(member.library_bytes for member in here)
            inside["workers"] = sum(member.overhead_bytes for member in here)
        others = max(0, int(self.external_bytes().value or 0))
        counted = {pid for member in self.tracked_processes for pid in member.pids}
        children = procfs.children_bytes(counted)
        if children is None:
            return MemoryOwners(inside, {"other processes": others})
        own = min(others, children)
        return MemoryOwners(inside, {UNTRACKED: own, "other processes": others - own})

    def unattributed_bytes(self) -> int:
        return self.used_bytes() - sum(self.memory_owners().in_process.values())

    def memory_stats(self) -> AllocatorStats:
        """malloc is everyone's allocator here, torch's too, and keeps no peaks."""
        heap = procfs.heap()
        return AllocatorStats(
            allocated_bytes=heap.held_bytes - heap.free_bytes if heap else None,
            reserved_bytes=heap.held_bytes if heap else None,
            resident_bytes=self.used_bytes(),
            largest_block_bytes=self.free_bytes(),  # pages need not lie side by side
        )


def check_host_memory(n_bytes: int, device: Device, *, fix: str = KEEP_NO_COPY) -> None:
    """`UnavailableError` where the host cannot hold so many bytes beside a reserve, with what to do
    instead; where the host is the device, running out is a result of the allocator's own."""
    free = CpuDevice().free_bytes()
    if not device.is_host and n_bytes + HOST_RESERVE_BYTES > free:
        raise UnavailableError(
            f"the host has {format_bytes(free)} free and the weights' copy takes "
            f"{format_bytes(n_bytes)} beside a reserve of {format_bytes(HOST_RESERVE_BYTES)}; "
            f"{fix}"
        )
