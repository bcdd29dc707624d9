"""Where models run now, behind one interface: CUDA's allocator and NVML, or Linux's process memory.

A reading that a machine cannot give is `None`, never a zero; `Reading.reason` says why.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.units import KIB


@dataclass(frozen=True)
class Reading:
    """A number from the machine, or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Account:
    """Owners that are not tenants. `inside` ones are part of `used_bytes` (on a CPU everything that
    is resident), `outside` ones are the rest of the device; a missing reading is absent."""

    inside: dict[str, int]
    outside: dict[str, int]


class Device(ABC):
    """A device with a capacity in bytes.

    `used_bytes` and `peak_bytes` are the allocator's side of memory: torch's caching allocator on
    CUDA, this process' resident memory on the CPU.
    """

    name: str
    kind: str
    allocator: str  # what `used_bytes` is read from: the `source` of a sample
    _envelope: int | None = None  # bytes of the smaller card that this device plays
    _ballast_bytes: int = 0
    _at_start: int = 0  # of them, what was in use when the envelope began and does not count

    @abstractmethod
    def title(self) -> str:
        """The device's own name."""

    def capacity_bytes(self) -> int:
        """All bytes that models could ever take here, read from the device; inside an envelope
        its bytes."""
        if self._envelope is not None:
            return self._at_start + self._envelope
        return self._capacity_bytes()

    @abstractmethod
    def _capacity_bytes(self) -> int:
        """The device's own capacity."""

    @property
    def enveloped(self) -> bool:
        return self._envelope is not None

    def shrink(self, n_bytes: int | None, *, ballast_bytes: int = 0) -> None:
        """Say that an envelope of so many bytes is in force, `ballast_bytes` of the device being
        held by another process for it (`hybridlab.envelope` makes it so)."""
        self._envelope = n_bytes
        self._ballast_bytes = ballast_bytes

    @abstractmethod
    def free_bytes(self) -> int:
        """Bytes that a new allocation could take now."""

    @abstractmethod
    def used_bytes(self) -> int: ...

    @abstractmethod
    def peak_bytes(self) -> int:
        """Highest `used_bytes` since `reset_peak`, seen by the allocator itself."""

    @abstractmethod
    def reset_peak(self) -> None: ...

    @abstractmethod
    def native_dtypes(self) -> tuple[str, ...]:
        """Dtypes that the device computes in without emulation."""

    @abstractmethod
    def synchronize(self) -> None: ...

    @abstractmethod
    def release(self) -> None:
        """Give freed memory back: collect garbage, then empty the allocator's cache."""

    def reserved_bytes(self) -> int | None:
        """Bytes that a caching allocator holds, in use or not; None where there is none."""
        return None

    @abstractmethod
    def outside_bytes(self) -> Reading:
        """Bytes of the device that are held outside this process' allocator."""

    @abstractmethod
    def count_exactly(self) -> None:
        """Make the allocator give large blocks back at once, so that what is in use is what is
        needed: for cases that measure memory, at some cost in time."""

    @abstractmethod
    def account(self) -> Account:
        """Bytes right now of owners that are not tenants, for the ledger."""

    def stamp(self) -> Any:
        """A point in the device's time; `seconds_between` turns two into a duration."""
        return time.perf_counter()

    def seconds(self, stamp: Any) -> float:
        """The stamp on the host's `perf_counter` clock, waiting for the device if need be."""
        return float(stamp)

    def check_dtype(self, dtype: str) -> None:
        """`UnavailableError` for a dtype that this device would only emulate."""
        if dtype in ("int8", "int4"):
            return
        if dtype not in self.native_dtypes():
            raise UnavailableError(
                f"{self.title()} has no {dtype} in hardware and would emulate it slowly; "
                f"use one of: {', '.join(self.native_dtypes())}"
            )


#: glibc's number of the option (malloc.h), and the size from which a block is mapped by itself.
M_MMAP_THRESHOLD = -3
EXACT_BLOCK_BYTES = 1024 * KIB


class CpuDevice(Device):
    """The host: memory as Linux counts it for this process, with a resettable peak."""

    name = kind = "cpu"
    allocator = "rss"

    def title(self) -> str:
        from hybridlab.records import machine

        return str(machine()["processor"])

    def _capacity_bytes(self) -> int:
        limits = [_meminfo()["MemTotal"]]
        for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            try:
                text = Path(path).read_text().strip()
            except OSError:
                continue  # that cgroup version is not mounted here
            if text.isdigit():
                limits.append(int(text))
        return min(limits)

    def free_bytes(self) -> int:
        free = min(_meminfo()["MemAvailable"], self._capacity_bytes())
        return min(free, self.capacity_bytes() - self.used_bytes()) if self.enveloped else free

    def used_bytes(self) -> int:
        return int(os.pread(_statm(os.getpid()), 128, 0).split()[1]) * _page_bytes()

    def peak_bytes(self) -> int:
        return max(status_bytes("VmHWM"), self.used_bytes())

    def reset_peak(self) -> None:
        # writing 5 resets VmHWM to the current resident size (man 5 proc, clear_refs)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")

    def native_dtypes(self) -> tuple[str, ...]:
        import torch

        # oneDNN's own word on whether it has bfloat16 kernels for this processor
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return ("float32", "bfloat16")
        return ("float32",)

    def synchronize(self) -> None:
        return None

    def release(self) -> None:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc only
            trim(0)

    def shrink(self, n_bytes: int | None, *, ballast_bytes: int = 0) -> None:
        self._at_start = self.used_bytes()
        super().shrink(n_bytes, ballast_bytes=ballast_bytes)

    def outside_bytes(self) -> Reading:
        if self.enveloped:  # the limit is this process' own
            return Reading(0.0)
        info = _meminfo()
        return Reading(info["MemTotal"] - info["MemAvailable"] - self.used_bytes())

    def count_exactly(self) -> None:
        # by default glibc keeps freed blocks of up to 32 MiB for later, which reads as in use
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, EXACT_BLOCK_BYTES)

    def account(self) -> Account:
        """`libraries`: resident pages of mapped files; `free heap`: what malloc holds, unowned."""
        inside = {"libraries": status_bytes("RssFile")}
        free_heap = _free_heap_bytes()
        if free_heap is not None:
            inside["free heap"] = free_heap
        others = self.outside_bytes().value
        return Account(inside, {"other processes": max(0, int(others or 0))})


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

        return int(torch.cuda.memory_allocated(self.index))

    def peak_bytes(self) -> int:
        import torch

        return int(torch.cuda.max_memory_allocated(self.index))

    def reset_peak(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self.index)

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

    def reserved_bytes(self) -> int | None:
        import torch

        return int(torch.cuda.memory_reserved(self.index))

    def outside_bytes(self) -> Reading:
        import torch

        used = nvml_used_bytes(self.index)
        if used.value is None:
            return used
        reserved = torch.cuda.memory_reserved(self.index)
        return Reading(used.value - self._ballast_bytes - reserved)

    def count_exactly(self) -> None:
        return None  # torch counts what is allocated, whatever its cache holds

    def account(self) -> Account:
        """`context` is what this process holds beside torch's allocator, told apart from strangers
        by what was in use before it touched the card (`strangers`)."""
        import torch

        reserved = int(torch.cuda.memory_reserved(self.index))
        slack = reserved - int(torch.cuda.memory_allocated(self.index))
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


def resolve_device(name: str) -> Device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device; `UnavailableError` where it is not there."""
    if name == "cpu":
        return CpuDevice()
    import torch

    if name == "auto":
        return CudaDevice(0) if torch.cuda.is_available() else CpuDevice()
    prefix, _, number = name.partition(":")
    if prefix != "cuda" or not (number or "0").isdigit():
        raise ParameterError(f"device {name!r} is not known; choose auto, cpu, cuda or cuda:N")
    index = int(number or "0")
    count = torch.cuda.device_count()
    if index >= count:
        raise UnavailableError(
            f"device {name!r} is not there: this machine has {count} CUDA devices; set device to "
            "cpu or auto, or use a preset for the CPU (params/pocket.yaml)"
        )
    return CudaDevice(index)


def card_of(device: Device) -> catalog.Card | None:
    """The catalog's card with this device's name, if any."""
    if device.kind != "cuda":
        return None
    words = device.title().lower().replace("-", " ").split()
    total = device.capacity_bytes()
    for card in catalog.CARDS.values():
        key = card.name.split("-")
        same_name = all(part in words for part in key if not part.isdigit() or len(part) == 4)
        if same_name and abs(total - card.usable_bytes) < 0.1 * card.usable_bytes:
            return card
    return None


# ------------------------------------------------------------------------------------------ NVML


@dataclass(frozen=True)
class CardMemory:
    """A whole card's bytes as NVML's v2 memory info has them: they sum to `total_bytes`."""

    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    free_bytes: int


def nvml_memory(index: int = 0) -> CardMemory:
    """The card's memory now, what the driver reserves told apart; `UnavailableError` without
    NVML."""
    import pynvml

    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(_nvml_handle(index), version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        raise UnavailableError(f"no NVML: {error}") from None
    return CardMemory(int(info.total), int(info.reserved), int(info.used), int(info.free))


def nvml_used_bytes(index: int = 0) -> Reading:
    """Bytes in use on the whole card without what the driver reserves."""
    try:
        return Reading(float(nvml_memory(index).used_bytes))
    except UnavailableError as error:
        return Reading(None, str(error))


def nvml_facts(index: int = 0) -> dict[str, Any]:
    """Driver, name, temperature and clocks; missing readings carry their reason."""
    import pynvml

    try:
        handle = _nvml_handle(index)
    except pynvml.NVMLError as error:
        return {"reason": f"no NVML: {error}"}
    queries = {
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "name": lambda: pynvml.nvmlDeviceGetName(handle),
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(
            handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "other_processes": lambda: _strangers(handle),
    }
    facts: dict[str, Any] = {}
    for name, query in queries.items():
        try:
            facts[name] = query()
        except pynvml.NVMLError as error:
            facts[name] = None
            facts[f"{name}_reason"] = str(error)
    return facts


def _strangers(handle: Any) -> int:
    """How many other processes compute on this card."""
    import pynvml

    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return sum(process.pid != os.getpid() for process in processes)


@cache
def _nvml_handle(index: int) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(index)


# ----------------------------------------------------------------------------------------- Linux


@cache
def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")


@cache
def _statm(pid: int) -> int:
    """This process' memory, opened once: the sampler reads it a hundred times a second. A fork has
    another pid, and so a file of its own."""
    return os.open(f"/proc/{pid}/statm", os.O_RDONLY)


def _meminfo() -> dict[str, int]:
    values = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * KIB
    return values


def status_bytes(field: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * KIB
    raise UnavailableError(f"this kernel does not report {field} in /proc/self/status")


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (man 3 mallinfo)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def _free_heap_bytes() -> int | None:
    """Bytes that malloc keeps without an owner; None where the C library does not say."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    return int(mallinfo2().fordblks)
