"""A CUDA GPU as a device."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from hybridlab.device import linux
from hybridlab.device.base import Account, Device, Reading, Wear
from hybridlab.device.members import Member, ReportedMember
from hybridlab.device.nvml import (
    nvml_energy_j,
    nvml_memory,
    nvml_neighbours,
    nvml_slowed_by,
    nvml_used_bytes,
)


class CudaDevice(Device):
    """One CUDA GPU: torch's allocator for the peaks, NVML (v2 memory info) for all the rest."""

    kind = "cuda"
    allocator = "allocator"

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.name = f"cuda:{index}"
        self._origin: tuple[Any, float] | None = None
        #: In use on the card before this process came: asked ahead of its first CUDA call, whose
        #: context would count as a stranger.
        self.strangers = nvml_used_bytes(index)

    def title(self) -> str:
        import torch

        return torch.cuda.get_device_name(self.index)

    def _capacity_bytes(self) -> int:
        import torch

        return int(torch.cuda.mem_get_info(self.index)[1])

    def free_bytes(self) -> int:
        import torch

        cached = torch.cuda.memory_reserved(self.index) - torch.cuda.memory_allocated(self.index)
        return int(torch.cuda.mem_get_info(self.index)[0]) + cached

    def used_bytes(self) -> int:
        import torch

        own = int(torch.cuda.memory_allocated(self.index))
        return own + sum(member.used_bytes() for member in self.members)

    def peak_bytes(self) -> int:
        import torch

        own = int(torch.cuda.max_memory_allocated(self.index))
        return own + sum(member.peak_bytes() for member in self.members)

    def reset_peak(self) -> None:
        import torch

        ready: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        if ready:  # before that nothing has peaked, and torch refuses to reset it
            torch.cuda.reset_peak_memory_stats(self.index)
        for member in self.members:
            member.reset_peak()

    def _member(self, name: str, pid: int, release: Callable[[], None]) -> Member:
        return ReportedMember(name, pid, release)

    def native_dtypes(self) -> tuple[str, ...]:
        import torch

        # a T4 says True to is_bf16_supported(), because it counts emulation
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ("float32", "bfloat16", "float16")
        return ("float32", "float16")

    def synchronize(self) -> None:
        import torch

        torch.cuda.synchronize(self.index)

    def release(self) -> None:
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        for member in self.members:
            member.release()

    def reserved_bytes(self) -> int:
        import torch

        own = int(torch.cuda.memory_reserved(self.index))
        return own + sum(member.reserved_bytes() for member in self.members)

    def outside_bytes(self) -> Reading:
        used = nvml_used_bytes(self.index)
        if used.value is None:
            return used
        return Reading(used.value - self._ballast_bytes - self.reserved_bytes())

    def count_exactly(self) -> None:
        return None  # torch counts what is allocated, whatever its cache holds

    def account(self) -> Account:
        """`context` is what this process and its members hold beside torch's allocator, told apart
        from strangers by what was in use before they touched the card (`strangers`)."""
        reserved = self.reserved_bytes()
        slack = reserved - self.used_bytes()
        outside = {"allocator slack": slack}
        if self.strangers.value is None:  # no NVML: these owners have no reading
            return Account({}, outside)
        card = nvml_memory(self.index)
        strangers = min(int(self.strangers.value) + self._ballast_bytes, card.used_bytes)
        outside |= {
            "driver reserved": card.reserved_bytes,
            "strangers": strangers,
            "context": max(0, card.used_bytes - strangers - reserved),
        }
        return Account({}, outside)

    def stamp(self) -> Any:
        import torch

        if self._origin is None:
            origin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self.synchronize()
            origin.record()
            self._origin = (origin, time.perf_counter())
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, stamp: Any) -> float:
        if self._origin is None:
            raise RuntimeError("seconds() was asked of a stamp that this device never made")
        stamp.synchronize()
        origin, at = self._origin
        return at + float(origin.elapsed_time(stamp)) / 1e3

    def neighbours(self) -> Reading:
        own = [pid for member in self.members for pid in member.pids]
        return nvml_neighbours(self.index, own=own)

    def energy_j(self) -> Reading:
        return nvml_energy_j(self.index)

    def slowed_by(self) -> set[str]:
        return nvml_slowed_by(self.index)

    def wear(self) -> Wear:
        import torch

        stats = torch.cuda.memory_stats(self.index)
        outside = self.account().outside
        return Wear(
            allocated_bytes=int(stats["allocated_bytes.all.current"]),
            reserved_bytes=int(stats["reserved_bytes.all.current"]),
            outside_bytes=outside.get("context"),
            resident_bytes=linux.status_bytes("VmRSS"),
            pinned_bytes=int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)),
            peak_active_bytes=int(stats["active_bytes.all.peak"]),
            peak_reserved_bytes=int(stats["reserved_bytes.all.peak"]),
            largest_block_bytes=self._largest_block_bytes(),
        )

    def _largest_block_bytes(self) -> int:
        """The largest hole in torch's segments, or what the driver would still give."""
        import torch

        segments: Any = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        holes = [
            int(block["size"])
            for segment in segments
            if segment["device"] == self.index
            for block in segment["blocks"]
            if block["state"] == "inactive"
        ]
        return max(int(torch.cuda.mem_get_info(self.index)[0]), *holes, 0)

    def new_stream(self, *, first: bool = False) -> Callable[[], AbstractContextManager[Any]]:
        import torch

        # a lower number is served first; 0 is the default stream's
        stream: Any = torch.cuda.Stream(self.index, priority=-1 if first else 0)  # type: ignore[no-untyped-call]

        def entered() -> AbstractContextManager[Any]:
            return torch.cuda.stream(stream)

        return entered

    def expand_segments(self) -> None:
        import torch

        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
