"""Processes that belong to a case beside its own, and their bytes of the device."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.devices import linux
from hybridlab.units import MIB

#: When pages are looked at again.
LOOK_EVERY_S = 1.0
LOOK_GROWN_BYTES = MIB


@dataclass(frozen=True)
class Report:
    """What a worker's own device says of its allocator, in bytes."""

    used_bytes: int
    peak_bytes: int
    reserved_bytes: int


class Member(ABC):
    """A worker's process as its case's device counts it; all zero when it has ended.

    `release`, called while the worker is idle, makes it give back what its allocator keeps.
    """

    #: Of its bytes, what an idle worker holds on a host, and pages of libraries.
    overhead_bytes = 0
    library_bytes = 0
    #: Of its resident pages, those that are counted elsewhere.
    shared_bytes = 0

    def __init__(self, name: str, pid: int, release: Callable[[], None]) -> None:
        self.name = name
        self.pid = pid
        self._release = release
        self.ended = False  # set when it is known to be gone: its number may be given again
        self._cpu_s = 0.0

    @property
    def pids(self) -> list[int]:
        """All processes that are counted in it."""
        return [self.pid]

    @property
    def cpu_s(self) -> float:
        """Processor time so far, as last seen before the process ended."""
        if not self.ended:
            self._cpu_s = linux.cpu_seconds(self.pid) or self._cpu_s
        return self._cpu_s

    @property
    def alive(self) -> bool:
        return not self.ended and linux.cpu_seconds(self.pid) is not None

    def leave(self) -> None:
        """Its process is about to be ended: what it took until now is kept."""
        _ = self.cpu_s
        self.ended = True

    def release(self) -> None:
        """Give freed memory back."""
        self._release()

    @abstractmethod
    def used_bytes(self) -> int: ...

    @abstractmethod
    def peak_bytes(self) -> int:
        """Highest `used_bytes` since `reset_peak`."""

    @abstractmethod
    def reset_peak(self) -> None: ...

    def reserved_bytes(self) -> int:
        """What a caching allocator holds for it."""
        return 0

    def wants_reset(self) -> bool:
        """Whether the worker should reset its allocator's peak before its next call; once."""
        return False

    @abstractmethod
    def hear(self, report: Report) -> None:
        """Take note of what the worker says after a call."""


class HostMember(Member):
    """Resident pages of the process without those that others map as well.

    A forked worker shares its libraries with the case's process, whose resident memory counts
    them already: what is left is what the worker's end would give back. Pages that two workers
    share with each other alone count for none. How much is shared takes milliseconds to read: it
    is read when memory is released, and with a peak where the process has grown or a while passed.
    """

    def __init__(self, name: str, pid: int, release: Callable[[], None]) -> None:
        super().__init__(name, pid, release)
        self._most_resident_bytes = 0
        self._at_first = linux.pages(pid)
        self._look()

    def release(self) -> None:
        super().release()
        self._look()

    def _look(self) -> None:
        self._looked_s = time.monotonic()
        resident, now = linux.resident_bytes(self.pid), linux.pages(self.pid)
        self._most_resident_bytes = max(self._most_resident_bytes, resident)
        self.shared_bytes = max(0, resident - now.private_bytes)
        self.library_bytes = now.private_clean_bytes
        # Python counts references in its objects: using an inherited one makes a copy of its page
        copied = max(0, self._at_first.inherited_bytes - now.inherited_bytes)
        self.overhead_bytes = self._at_first.private_dirty_bytes + copied

    def used_bytes(self) -> int:
        if self.ended:
            return 0
        return max(0, linux.resident_bytes(self.pid) - self.shared_bytes)

    def peak_bytes(self) -> int:
        if self.ended:
            return 0
        grown = linux.resident_bytes(self.pid) - self._most_resident_bytes
        if grown > LOOK_GROWN_BYTES or time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._look()
        return max(linux.peak_resident_bytes(self.pid) - self.shared_bytes, self.used_bytes())

    def reset_peak(self) -> None:
        if not self.ended:
            linux.reset_peak(self.pid)

    def hear(self, report: Report) -> None:
        return None  # the kernel can be asked at any time


class ReportedMember(Member):
    """Bytes of another process' CUDA allocator, which only that process can read: as it said with
    its last answer. While it is at work they are those of before."""

    def __init__(self, name: str, pid: int, release: Callable[[], None]) -> None:
        super().__init__(name, pid, release)
        self._last = Report(0, 0, 0)
        self._peak_bytes = 0
        self._reset_wanted = False

    def used_bytes(self) -> int:
        return self._last.used_bytes if self.alive else 0

    def peak_bytes(self) -> int:
        return self._peak_bytes

    def reset_peak(self) -> None:
        self._peak_bytes = self.used_bytes()
        self._reset_wanted = True

    def reserved_bytes(self) -> int:
        return self._last.reserved_bytes if self.alive else 0

    def wants_reset(self) -> bool:
        wanted, self._reset_wanted = self._reset_wanted, False
        return wanted

    def hear(self, report: Report) -> None:
        self._last = report
        self._peak_bytes = max(self._peak_bytes, report.peak_bytes)
