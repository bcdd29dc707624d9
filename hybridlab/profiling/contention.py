"""Who else was at work while a case ran, and whether the hardware held its clocks.

A time that was taken while other processes computed is not a time of the case: it is marked
invalid.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from hybridlab.devices import Device, Reading
from hybridlab.devices.procfs import processor_seconds, throttle_counters
from hybridlab.units import format_percent

#: The kernel counts processor time in ticks of 10 ms: over less than this a share means nothing.
LEAST_S = 0.5


@dataclass(frozen=True)
class _Moment:
    at_s: float
    busy_s: float
    own_s: float
    throttles: dict[str, int]


class ContentionMonitor:
    """Begins when made; `columns` tells what has happened since then.

    `other_processes_cpu_share`: share of all processors that other processes used; None over so
    short a time that it cannot be told.
    `other_gpu_processes`: most other processes that were seen computing on the card.
    `process_cpu_s`: processor time of the case and its workers. `gpu_utilization_share`: share of
    that time in which a kernel was at work on the card.
    `throttled`: why clocks were lowered ('' where nothing says so).
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._neighbours: list[Reading] = []
        self._slowed: set[str] = set()
        self._begun = self._now()
        self.look()

    def look(self) -> None:
        """Take note of the card's neighbours and clocks at this moment."""
        self._neighbours.append(self.device.other_processes())
        self._slowed |= self.device.throttle_reasons()

    def columns(self) -> dict[str, Any]:
        self.look()
        ended = self._now()
        elapsed = ended.at_s - self._begun.at_s
        own = ended.own_s - self._begun.own_s
        foreign = max(0.0, ended.busy_s - self._begun.busy_s - own)
        busy = self.device.utilization(since_s=elapsed)
        seen = [reading.value for reading in self._neighbours if reading.value is not None]
        grown = {
            name
            for name, count in ended.throttles.items()
            if count > self._begun.throttles.get(name, 0)
        }
        return {
            "other_processes_cpu_share": min(1.0, foreign / elapsed / (os.cpu_count() or 1))
            if elapsed >= LEAST_S
            else None,
            "other_gpu_processes": max(seen) if seen else None,
            "other_gpu_reason": "" if seen else self._neighbours[-1].reason,
            "throttled": ", ".join(sorted(self._slowed | grown)),
            "process_cpu_s": own,
            "gpu_utilization_share": busy.value,
            "gpu_utilization_reason": busy.reason,
        }

    def _now(self) -> _Moment:
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        own += sum(member.cpu_s for member in self.device.tracked_processes)
        return _Moment(time.perf_counter(), processor_seconds(), own, throttle_counters())


def contention_reason(columns: dict[str, Any], *, max_other_cpu_share: float) -> str:
    """Why the times of a case with these columns cannot be trusted; '' where they can."""
    if (columns["other_gpu_processes"] or 0) > 0:
        count = int(columns["other_gpu_processes"])
        return f"{count} other processes computed on the GPU meanwhile; end them and repeat"
    share = columns["other_processes_cpu_share"]
    if share is not None and share > max_other_cpu_share:
        return (
            f"other processes used {format_percent(share)} of the processors meanwhile, more than "
            f"max_other_cpu_share allows ({format_percent(max_other_cpu_share)}); end them and "
            "repeat"
        )
    return ""
