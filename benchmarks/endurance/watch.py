"""What the server's processes hold while they work, and whether it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.endurance.server import Running
from hybridlab.device import linux
from hybridlab.judges.trends import LEAST_CYCLES, LEAST_GROWTH_SHARE, growth
from hybridlab.wear import SETTLING_SHARE

EVERY_S = 1.0


class Watch:
    """A reading each second: bytes of each process (its proportional set: pages that several map
    are shared among them), the server's own descriptors and threads."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.readings: list[dict[str, float]] = []

    def read(self) -> dict[str, float]:
        processes = self.server.processes()
        own = Path(f"/proc/{processes['server']}")
        found = {f"{name} bytes": linux.proportional_bytes(p) for name, p in processes.items()}
        return {
            **found,
            "all bytes": sum(found.values()),
            "server descriptors": len(list((own / "fd").iterdir())),
            "server threads": len(list((own / "task").iterdir())),
        }

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
        """By quantity: the median, what the trend gains over the time watched with its 95 %
        interval, and the lab's word for it. The first fifth is left out: what is allocated only
        once is allocated there."""
        settled = self.readings[int(SETTLING_SHARE * len(self.readings)) :]
        names = settled[0] if settled else {}
        return {name: _trend([row[name] for row in settled], name) for name in names}


def _trend(values: list[float], name: str) -> dict[str, Any]:
    median = sorted(values)[len(values) // 2]
    # a share of a few descriptors is less than one of them
    limit = LEAST_GROWTH_SHARE * median if name.endswith("bytes") else 1.0
    if len(values) < LEAST_CYCLES:
        return {"median": median, "trend": "unclear", "n": len(values)}
    trend, gain = growth(list(range(len(values))), values, limit=limit)
    return {
        "median": median,
        "gain": gain.value,
        "gain_interval": [gain.low, gain.high],
        "most_seen": max(values),
        "limit": limit,
        "trend": trend,
        "n": gain.n,
    }
