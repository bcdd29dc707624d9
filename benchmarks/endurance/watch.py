"""What the server's processes hold while they work, and whether it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.endurance.server import Running
from hybridlab.analysis.claims.evidence import decided
from hybridlab.analysis.claims.trend_rules import LEAST_CYCLES, LEAST_GROWTH_SHARE, gained
from hybridlab.analysis.memory_growth import SETTLING_SHARE
from hybridlab.devices import procfs

EVERY_S = 1.0
#: Of the time watched, each published with its median.
STRETCHES = 12


class Watch:
    """A reading each second of every process' bytes: its proportional set, in which pages that
    several map are shared among them."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.readings: list[dict[str, int]] = []

    def read(self) -> dict[str, int]:
        processes = self.server.processes()
        found = {name: procfs.proportional_bytes(pid) for name, pid in processes.items()}
        return {**found, "all": sum(found.values())}

    @asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        """Read while the work inside runs."""
        reading = asyncio.create_task(self._run())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _run(self) -> None:
        next_s = time.monotonic()
        while True:
            self.readings.append(await asyncio.to_thread(self.read))
            next_s += EVERY_S
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    def trends(self) -> dict[str, Any]:
        """By process: the median, what the trend gains over the time watched with its 95 %
        interval, and the lab's word for it. The first fifth is left out: what is allocated only
        once is allocated there."""
        settled = self.readings[int(SETTLING_SHARE * len(self.readings)) :]
        names = settled[0] if settled else {}
        return {name: _trend([row[name] for row in settled]) for name in names}


def _trend(values: list[int]) -> dict[str, Any]:
    median = sorted(values)[len(values) // 2]
    stretches = np.array_split(values, min(STRETCHES, len(values)))
    found = {
        "median_bytes": median,
        "most_bytes": max(values),
        "n": len(values),
        "stretch_medians_bytes": [int(np.median(stretch)) for stretch in stretches],
    }
    if len(values) < LEAST_CYCLES:
        return {**found, "trend": "unclear"}
    gain, limit = gained(range(len(values)), values), LEAST_GROWTH_SHARE * median
    shown = gain.interval()
    verdict, _ = decided(gain.above(limit), gain.below(limit))
    return {
        **found,
        "gain_bytes": shown.value,
        "gain_interval_bytes": [shown.low, shown.high],
        "trend": {"supported": "grows", "refuted": "flat"}.get(verdict, "unclear"),
    }


def at_rest(server: Running) -> dict[str, int]:
    """What the server's own process holds open when nobody asks anything."""
    own = Path(f"/proc/{server.process.pid}")
    return {
        "descriptors": len(list((own / "fd").iterdir())),
        "threads": len(list((own / "task").iterdir())),
    }
