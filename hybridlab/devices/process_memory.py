"""Processes that belong to a case beside its own, and their bytes of the device."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.devices import procfs
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


@dataclass(frozen=True)
class ReportedMemory:
    """What a server's allocators hold of a GPU, and their highest while weights were loaded and in
    the requests since then, in bytes."""

    used_bytes: int = 0
    reserved_bytes: int = 0
    load_peak_bytes: int = 0
    request_peak_bytes: int = 0


def _keep_all() -> None:
    """The `release` of a process that gives nothing back when asked."""


class ProcessMemory(ABC):
    """A process as its case's device counts it; all zero when it has ended.

    `release`, called while the process is idle, makes it give back what its allocator keeps.
    """

    #: Of its bytes, what an idle worker holds on a host, and pages of libraries.
    overhead_bytes = 0
    library_bytes = 0
    #: Of its resident pages, those that are counted elsewhere.
    shared_bytes = 0

    def __init__(self, name: str, pid: int, release: Callable[[], None] = _keep_all) -> None:
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
            self._cpu_s = procfs.cpu_seconds(self.pid) or self._cpu_s
        return self._cpu_s

    @property
    def alive(self) -> bool:
        return not self.ended and procfs.cpu_seconds(self.pid) is not None

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

    def update(self, report: Report) -> None:
        """Take over what the worker reports after a call, where it cannot be read at any time."""
        return None


class RssProcess(ProcessMemory):
    """Resident pages of the process without those that others map as well: what its end would
    give back, since the case's process counts the libraries that a fork shares with it.

    How much is shared takes milliseconds to read: it is read when memory is released, and with a
    peak where the process has grown or a while passed.
    """

    _at_first: procfs.Pages | None = None

    def __init__(self, name: str, pid: int, release: Callable[[], None] = _keep_all) -> None:
        super().__init__(name, pid, release)
        self._look()

    def release(self) -> None:
        super().release()
        self._look()

    def _look(self) -> None:
        self._looked_s, self._looked_bytes = time.monotonic(), self._resident_bytes()
        now = procfs.pages(self.pid)
        first = self._at_first = self._at_first or now
        self.shared_bytes = max(0, self._looked_bytes - now.private_bytes)
        self.library_bytes = now.private_clean_bytes
        # Python counts references in its objects: using an inherited one makes a copy of its page
        copied = max(0, first.inherited_bytes - now.inherited_bytes)
        self.overhead_bytes = first.private_dirty_bytes + copied

    def _resident_bytes(self) -> int:
        return sum(map(procfs.resident_bytes, self.pids))

    def used_bytes(self) -> int:
        return 0 if self.ended else max(0, self._resident_bytes() - self.shared_bytes)

    def peak_bytes(self) -> int:
        """Of several processes the sum of each one's own peak, an upper bound."""
        if self.ended:
            return 0
        grown = self._resident_bytes() - self._looked_bytes
        if grown > LOOK_GROWN_BYTES or time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._look()
        peaks = sum(map(procfs.peak_resident_bytes, self.pids))
        return max(peaks - self.shared_bytes, self.used_bytes())

    def reset_peak(self) -> None:
        if not self.ended:
            for pid in self.pids:
                procfs.reset_peak(pid)


class ReportedProcess(ProcessMemory):
    """Bytes of another process' CUDA allocator, which only that process can read: as reported with
    its last answer. While it is at work they are those of before."""

    def __init__(self, name: str, pid: int, release: Callable[[], None] = _keep_all) -> None:
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

    def update(self, report: Report) -> None:
        self._last = report
        self._peak_bytes = max(self._peak_bytes, report.peak_bytes)


class ProcessTree(ProcessMemory):
    """A server's process and whatever it has started, counted as one."""

    #: Of its bytes, weights: set by the caller that knows.
    weights_bytes = 0
    _pids: list[int] | None = None

    def _look(self) -> None:
        self._pids = procfs.process_tree(self.pid)

    @property
    def pids(self) -> list[int]:
        return self._pids or [self.pid]

    @property
    def cpu_s(self) -> float:
        """Of all processes, ended ones too. When the first has ended, without what its parent
        counts among its own children from then on (`reaped`)."""
        if not self.ended:
            own = (procfs.cpu_seconds(pid, with_ended=True) or 0.0 for pid in self.pids)
            self._cpu_s = sum(own)
        return self._cpu_s

    def leave(self) -> None:
        self._look()
        super().leave()

    def reaped(self, cpu_s: float) -> None:
        """Its parent has waited for it, and counts so much more by that."""
        self._cpu_s = max(0.0, self._cpu_s - cpu_s)


class RssProcessTree(ProcessTree, RssProcess):
    """Its bytes of a host: pages that its processes share count once, pages that others map too
    (libraries) by their share, as a container of them would be charged for."""

    def _look(self) -> None:
        super()._look()
        self._looked_s, self._looked_bytes = time.monotonic(), self._resident_bytes()
        proportional = sum(map(procfs.proportional_bytes, self.pids))
        self.shared_bytes = self._looked_bytes - proportional

    def release(self) -> None:
        """Look again, at rest: what is no weight now is the processes' own."""
        self._look()
        self.overhead_bytes = max(0, self.used_bytes() - self.weights_bytes)


class ReportedProcessTree(ProcessTree, ReportedProcess):
    """Its bytes of a GPU, which only its own processes can read: as `ask` has them tell when memory
    is released or a peak is wanted.

    The first reset is the end of loading; a server's peak of requests is not reset, so that a
    request's is the highest of all up to it.
    """

    def __init__(self, name: str, pid: int, ask: Callable[[], ReportedMemory]) -> None:
        super().__init__(name, pid)
        self._ask = ask
        self._loaded = False
        self._look()

    def release(self) -> None:
        self._look()
        self._take_over()

    def _take_over(self) -> None:
        told = self._ask()
        self._peak_bytes = told.request_peak_bytes if self._loaded else told.load_peak_bytes
        self._last = Report(told.used_bytes, self._peak_bytes, told.reserved_bytes)

    def peak_bytes(self) -> int:
        if self.ended:
            return 0
        self._take_over()
        return self._peak_bytes

    def reset_peak(self) -> None:
        self._loaded = True
