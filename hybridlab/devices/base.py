"""What every device can be asked, and in which words it answers.

A reading that a machine cannot give is `None`, never a zero; `Reading.reason` says why.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hybridlab.devices.process_memory import ProcessMemory
from hybridlab.errors import UnavailableError


@dataclass(frozen=True)
class Reading:
    """A number from the machine, or the reason why there is none."""

    value: float | None
    reason: str = ""


#: The owner of what a caching allocator holds beside what is in use.
SLACK = "allocator cache"
#: The owner of what processes hold that the case's own has started and nobody counts.
UNTRACKED = "untracked children"


@dataclass(frozen=True)
class MemoryOwners:
    """Bytes by owner, models apart. `in_process` ones are part of `used_bytes` (on a CPU all that
    is resident), `external` ones are the rest of the device; a missing reading is absent."""

    in_process: dict[str, int]
    external: dict[str, int]

    def with_slack(self, n_bytes: int) -> MemoryOwners:
        """The same with the slack of another moment."""
        return MemoryOwners(self.in_process, {**self.external, SLACK: n_bytes})

    def free_bytes(self, *, capacity_bytes: int, used_bytes: int) -> int:
        """Free bytes of the device while its allocators have so much in use: on a GPU as the driver
        counts them."""
        return capacity_bytes - used_bytes - sum(self.external.values())


@dataclass(frozen=True, kw_only=True)
class AllocatorStats:
    """What many requests may have done to memory, read after one of them, in bytes.

    `allocated` is in use, `reserved` is what the allocator holds for it, `outside` what this
    process holds of the device beside the allocator, `resident` and `pinned` are the host's;
    the peaks are since `reset_peak`. A reading that this device cannot give is None.
    """

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    external_bytes: int | None = None
    resident_bytes: int | None = None
    pinned_bytes: int | None = None
    peak_active_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    largest_block_bytes: int | None = None

    @property
    def fragmentation(self) -> float | None:
        """1 - peak active / peak reserved (GMLake, arXiv 2401.08156); of what is held now where
        the allocator keeps no peaks."""
        active, reserved = self.peak_active_bytes, self.peak_reserved_bytes
        if active is None or reserved is None:
            active, reserved = self.allocated_bytes, self.reserved_bytes
        if active is None or not reserved:
            return None
        return 1 - active / reserved


class Device(ABC):
    """A device with a capacity in bytes.

    `used_bytes` and `peak_bytes` are the allocator's side of memory: torch's caching allocator on
    CUDA, this process' resident memory on the CPU; those of `members` are part of both. Processes
    have no joint peak: the peak is the sum of each one's own, an upper bound.
    """

    name: str
    kind: str  # what torch calls devices of its type
    allocator: str  # what `used_bytes` is read from: the `source` of a sample
    #: Its memory and cores are this machine's own: weights cross no link, the kernel knows what
    #: each process holds, a memory limit is one process' own.
    is_host = False
    #: `used_bytes` are tensors alone, of which the allocator keeps a history by stream.
    counts_tensors = False
    #: Times that are measured on it are its own; a simulated card has none.
    keeps_times = True
    _limit_bytes: int | None = None  # the memory limit in force
    _ballast_bytes: int = 0
    _at_start: int = 0  # of them, what was in use when the limit began and does not count
    #: Processes beside this one whose bytes count as the case's; changed by `track_process` alone.
    tracked_processes: tuple[ProcessMemory, ...] = ()
    #: Whether `count_exactly` was asked for, for the members to do the same.
    exact: bool = False
    #: How many models compute here at the same time; on a CPU they divide its cores among them.
    concurrent_models: int = 1

    @property
    def torch_name(self) -> str:
        """What torch calls it."""
        return self.name

    @abstractmethod
    def title(self) -> str:
        """The device's own name."""

    def capacity_bytes(self) -> int:
        """All bytes that models could ever take here, read from the device; under a memory
        limit that limit."""
        if self._limit_bytes is not None:
            return self._at_start + self._limit_bytes
        return self._capacity_bytes()

    @abstractmethod
    def _capacity_bytes(self) -> int:
        """The device's own capacity."""

    @property
    def memory_limited(self) -> bool:
        return self._limit_bytes is not None

    def set_memory_limit(self, n_bytes: int | None, *, ballast_bytes: int = 0) -> None:
        """Note that a limit of so many bytes is in force, `ballast_bytes` of the device being held
        by another process for it (`hybridlab.devices.memory_limit` makes it so)."""
        self._limit_bytes = n_bytes
        self._ballast_bytes = ballast_bytes

    def track_process(self, name: str, pid: int, release: Callable[[], None]) -> ProcessMemory:
        """Count this worker's process as part of the case from now on."""
        member = self._member(name, pid, release)
        self.tracked_processes = (*self.tracked_processes, member)
        return member

    @abstractmethod
    def _member(self, name: str, pid: int, release: Callable[[], None]) -> ProcessMemory:
        """A member of this device's kind."""

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

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA's compute capability, which the kernels are chosen by; None where there is none."""
        return None

    @abstractmethod
    def native_dtypes(self) -> tuple[str, ...]:
        """Dtypes that the device computes in without emulation."""

    def synchronize(self) -> None:  # noqa: B027
        """Wait until the device has done what it was given, where it works by itself."""

    @abstractmethod
    def release(self) -> None:
        """Give freed memory back: collect garbage, then empty the allocator's cache."""

    def release_caches(self) -> None:  # noqa: B027
        """Give back what is kept for later besides: cuBLAS' workspaces, one for each stream that
        has computed, whose few MiB may hold a whole segment; freed blocks of every stream, and
        pinned ones. For when nothing is at work."""

    def reserved_bytes(self) -> int | None:
        """Bytes that a caching allocator holds, in use or not; None where there is none."""
        return None

    def peak_reserved_bytes(self) -> int | None:
        """Highest `reserved_bytes` since `reset_peak`; None where there is none."""
        return None

    @abstractmethod
    def external_bytes(self) -> Reading:
        """Bytes of the device that are held outside this process' allocator."""

    def count_exactly(self) -> None:
        """Make the allocator give large blocks back at once, so that what is in use is what is
        needed: for cases that measure memory, at some cost in time."""
        self.exact = True

    @abstractmethod
    def memory_owners(self) -> MemoryOwners:
        """Bytes right now of owners that are not models, for the ledger."""

    def unattributed_bytes(self) -> int | None:
        """What is in use without the owners that `account` names, where Python objects count as
        well; None on a device that holds tensors alone."""
        return None

    @abstractmethod
    def memory_stats(self) -> AllocatorStats:
        """What memory looks like after a cycle of requests."""

    def total_used_bytes(self) -> Reading:
        """Bytes in use on the whole device, by whomever."""
        return Reading(None, "this device does not say what is in use on it")

    def process_bytes(self) -> dict[int, int]:
        """What each process holds of the device, by its number; empty where that is not told."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Driver, temperature and clocks; a missing reading carries its reason."""
        return {"reason": "no CUDA device is used"}

    def side_stream(self) -> AbstractContextManager[None]:
        """Copies inside run beside the device's other work, from when that is done which is queued
        by now, since it may still use their memory. Waits at its end."""
        return nullcontext()

    def compute_slot(self) -> AbstractContextManager[None]:
        """This thread computes on the device inside, with its share of the cores on a CPU."""
        return nullcontext()

    def new_stream(self, *, first: bool = False) -> Callable[[], AbstractContextManager[Any]]:
        """A queue of its own for the work of the thread that enters what this makes; `first` gives
        it the higher priority."""
        raise UnavailableError("a CPU has no streams; use the variant threads or processes")

    def expand_segments(self) -> None:
        """Let the allocator's segments grow in place, before anything is allocated;
        `UnavailableError` where the allocator cannot."""
        raise UnavailableError("expandable segments are an option of torch's CUDA allocator")

    def other_processes(self) -> Reading:
        """How many other processes compute on the device now."""
        return Reading(None, "only a GPU knows who computes on it")

    def energy_j(self) -> Reading:
        """Joules used up to now, from a start that does not matter: differences count."""
        return Reading(None, "only a GPU counts its energy")

    def utilization(self, *, since_s: float) -> Reading:
        """Mean share of the last `since_s` seconds in which the device was at work."""
        return Reading(None, "only a GPU counts how long it was at work")

    def throttle_reasons(self) -> set[str]:
        """Why the device's clocks are lower than they could be, right now."""
        return set()

    def stamp(self) -> Any:
        """A point in the device's time; `seconds` puts it on the host's clock."""
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
