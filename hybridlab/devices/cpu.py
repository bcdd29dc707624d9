"""The host as a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

from hybridlab.devices import linux
from hybridlab.devices.base import Account, Device, Reading, Wear
from hybridlab.devices.cores import Cores
from hybridlab.devices.members import HostMember, Member
from hybridlab.devices.system_info import machine
from hybridlab.units import KIB

#: The size from which a block is mapped by itself where bytes are counted exactly.
EXACT_BLOCK_BYTES = 1024 * KIB


class CpuDevice(Device):
    """The host: memory as Linux counts it for this process, with a resettable peak."""

    name = kind = "cpu"
    allocator = "rss"

    def __init__(self) -> None:
        super().__init__()
        self._cores = Cores()

    def title(self) -> str:
        return str(machine()["processor"])

    def _capacity_bytes(self) -> int:
        limits = [linux.meminfo()["MemTotal"]]
        for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            try:
                text = Path(path).read_text().strip()
            except OSError:
                continue  # that cgroup version is not mounted here
            if text.isdigit():
                limits.append(int(text))
        return min(limits)

    def free_bytes(self) -> int:
        free = min(linux.meminfo()["MemAvailable"], self._capacity_bytes())
        return min(free, self.capacity_bytes() - self.used_bytes()) if self.enveloped else free

    def used_bytes(self) -> int:
        own = int(os.pread(linux.statm(os.getpid()), 128, 0).split()[1]) * linux.page_bytes()
        return own + sum(member.used_bytes() for member in self.members)

    def peak_bytes(self) -> int:
        own = linux.status_bytes("VmHWM")
        return max(own + sum(m.peak_bytes() for m in self.members), self.used_bytes())

    def reset_peak(self) -> None:
        linux.reset_peak("self")
        for member in self.members:
            member.reset_peak()

    def _member(self, name: str, pid: int, release: Callable[[], None]) -> Member:
        return HostMember(name, pid, release)

    def native_dtypes(self) -> tuple[str, ...]:
        import torch

        # oneDNN's own word on whether it has bfloat16 kernels for this processor
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return ("float32", "bfloat16")
        return ("float32",)

    @property
    def cores(self) -> Cores:
        return self._cores

    def share_cores(self, board: memoryview, place: int) -> None:
        """Share the cores with other processes, by a board that all of them see."""
        self._cores = Cores(board, place=place)

    def synchronize(self) -> None:
        return None

    def release(self) -> None:
        gc.collect()
        linux.trim_heap()
        for member in self.members:
            member.release()

    def release_caches(self) -> None:
        return None

    def shrink(self, n_bytes: int | None, *, ballast_bytes: int = 0) -> None:
        self._at_start = self.used_bytes()
        super().shrink(n_bytes, ballast_bytes=ballast_bytes)

    def outside_bytes(self) -> Reading:
        if self.enveloped:  # the limit is this process' own
            return Reading(0.0)
        info = linux.meminfo()
        return Reading(info["MemTotal"] - info["MemAvailable"] - self.used_bytes())

    def count_exactly(self) -> None:
        self.exact = True
        # by default glibc keeps freed blocks of up to 32 MiB for later, which reads as in use
        linux.set_mmap_threshold(EXACT_BLOCK_BYTES)

    def account(self) -> Account:
        """`libraries`: resident pages of mapped files; `free heap`: what malloc holds, unowned;
        `workers`: what members hold without their work: their own interpreters' pages and copies of
        pages that they had inherited."""
        inside = {"libraries": linux.status_bytes("RssFile")}
        heap = linux.heap()
        if heap is not None:
            inside["free heap"] = heap.free_bytes
        if self.members:
            here = [member for member in self.members if member.alive]
            inside["libraries"] += sum(member.library_bytes for member in here)
            inside["workers"] = sum(member.overhead_bytes for member in here)
        others = self.outside_bytes().value
        return Account(inside, {"other processes": max(0, int(others or 0))})

    def unnamed_bytes(self) -> int:
        return self.used_bytes() - sum(self.account().inside.values())

    def wear(self) -> Wear:
        """malloc is everyone's allocator here, torch's too, and keeps no peaks."""
        heap = linux.heap()
        return Wear(
            allocated_bytes=heap.held_bytes - heap.free_bytes if heap else None,
            reserved_bytes=heap.held_bytes if heap else None,
            resident_bytes=self.used_bytes(),
            largest_block_bytes=self.free_bytes(),  # pages need not lie side by side
        )
