"""A server with all its processes: their bytes of a host, or those of a GPU as it tells them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab.devices import linux
from hybridlab.devices.members import LOOK_EVERY_S, LOOK_GROWN_BYTES, Member, Report


class Tree(Member):
    """A process and whatever it has started, counted as one."""

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(name, pid, lambda: None)
        #: Of its bytes, weights: told by whoever knows.
        self.weights_bytes = 0
        self._pids = [pid]
        self._look()

    def _look(self) -> None:
        self._pids = linux.family(self.pid)

    @property
    def pids(self) -> list[int]:
        return self._pids

    @property
    def cpu_s(self) -> float:
        """Of all processes, ended ones too. When the first has ended, without what whoever started
        it counts among its own children from then on (`reaped`)."""
        if not self.ended:
            own = (linux.cpu_seconds(pid, with_ended=True) or 0.0 for pid in self.pids)
            self._cpu_s = sum(own)
        return self._cpu_s

    def leave(self) -> None:
        self._look()
        super().leave()

    def reaped(self, cpu_s: float) -> None:
        """Whoever started it has waited for it, and by that counts so much more."""
        self._cpu_s = max(0.0, self._cpu_s - cpu_s)

    def hear(self, report: Report) -> None:
        return None  # whoever wants to know asks


class TreeMember(Tree):
    """Its bytes of a host: pages that its processes share count once, pages that others map too
    (libraries) by their share. What the host would have back if all of them ended, and what a
    container of them would be charged for.

    The shared part takes milliseconds to read, so it is read as seldom as `HostMember` does.
    """

    def _look(self) -> None:
        super()._look()
        self._looked_s = time.monotonic()
        self._resident = sum(map(linux.resident_bytes, self.pids))
        self.shared_bytes = self._resident - sum(map(linux.proportional_bytes, self.pids))

    def release(self) -> None:
        """Look again, at rest: what is no weight now is the processes' own."""
        self._look()
        self.overhead_bytes = max(0, self.used_bytes() - self.weights_bytes)

    def used_bytes(self) -> int:
        if self.ended:
            return 0
        return max(0, sum(map(linux.resident_bytes, self.pids)) - self.shared_bytes)

    def peak_bytes(self) -> int:
        """The sum of each process' own peak, and so an upper bound."""
        if self.ended:
            return 0
        grown = sum(map(linux.resident_bytes, self.pids)) - self._resident
        if grown > LOOK_GROWN_BYTES or time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._look()
        peaks = sum(map(linux.peak_resident_bytes, self.pids))
        return max(peaks - self.shared_bytes, self.used_bytes())

    def reset_peak(self) -> None:
        if not self.ended:
            for pid in self.pids:
                linux.reset_peak(pid)


@dataclass(frozen=True)
class Told:
    """What a server's allocators hold of a GPU, and their highest while weights were loaded and in
    the requests since then, in bytes."""

    used_bytes: int = 0
    reserved_bytes: int = 0
    load_peak_bytes: int = 0
    request_peak_bytes: int = 0


class ToldMember(Tree):
    """Its bytes of a GPU, which only its own processes can read: as `ask` has them tell when memory
    is released or a peak is wanted. Between that they are those of before.

    The first reset is the end of loading; a server's peak of requests is not reset, so that a
    request's is the highest of all up to it.
    """

    def __init__(self, name: str, pid: int, ask: Callable[[], Told]) -> None:
        super().__init__(name, pid)
        self._ask = ask
        self._told = Told()
        self._loaded = False

    def release(self) -> None:
        self._look()
        self._told = self._ask()

    def used_bytes(self) -> int:
        return 0 if self.ended else self._told.used_bytes

    def reserved_bytes(self) -> int:
        return 0 if self.ended else self._told.reserved_bytes

    def peak_bytes(self) -> int:
        if self.ended:
            return 0
        self._told = told = self._ask()
        return max(told.request_peak_bytes if self._loaded else told.load_peak_bytes, 0)

    def reset_peak(self) -> None:
        self._loaded = True
