"""A server with all its processes, and their bytes of a host."""

from __future__ import annotations

import time

from hybridlab.device import linux
from hybridlab.device.members import LOOK_EVERY_S, LOOK_GROWN_BYTES, Member, Report


class TreeMember(Member):
    """A process and whatever it has started, counted as one: pages that they share count once,
    pages that others map too (libraries) by their share. What the host would have back if all of
    them ended, and what a container of them would be charged for.

    The shared part takes milliseconds to read, so it is read as seldom as `HostMember` does.
    """

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(name, pid, lambda: None)
        #: Of its bytes, weights: told by whoever knows.
        self.weights_bytes = 0
        self._look()

    def _look(self) -> None:
        self._looked_s = time.monotonic()
        self.pids = linux.family(self.pid)
        self._resident = sum(map(linux.resident_bytes, self.pids))
        self.shared_bytes = self._resident - sum(map(linux.proportional_bytes, self.pids))

    def release(self) -> None:
        """Look again, at rest: what is no weight now is the processes' own."""
        self._look()
        self.overhead_bytes = max(0, self.used_bytes() - self.weights_bytes)

    @property
    def cpu_s(self) -> float:
        """Of all processes. When they have ended, without the first one's own: whoever started it
        has waited for it, and counts it among its children."""
        if not self.ended:
            self._cpu_s = sum(linux.cpu_seconds(pid) or 0.0 for pid in self.pids)
        return self._cpu_s

    def leave(self) -> None:
        self._look()
        own = linux.cpu_seconds(self.pid) or 0.0
        self._cpu_s = self.cpu_s - own
        self.ended = True

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

    def hear(self, report: Report) -> None:
        return None  # the kernel can be asked at any time
