"""What many cycles did to memory and to latency: trends, fragmentation, time to an OOM. No torch.

An arm is a strategy with a remedy. The first fifth of its cycles is left out of every trend: what
is allocated only once is allocated there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hybridlab.analysis.stats import (
    Estimate,
    Interval,
    bootstrap_interval,
    holm,
    slope,
    tail,
)
from hybridlab.catalog.device_names import PREFIX

SETTLING_SHARE = 0.2
#: Trends are told per so many cycles.
PER_CYCLES = 100
#: What may creep, and how it is called.
QUANTITIES = {
    "allocated_bytes": "allocated",
    "reserved_bytes": "reserved",
    "external_bytes": "non-torch",
    "resident_bytes": "resident",
    "pinned_bytes": "pinned",
    "latency_s": "latency",
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The cycles of one strategy with one remedy, in order."""

    strategy: str
    mitigation: str
    cycles: pd.DataFrame

    @property
    def name(self) -> str:
        return f"{self.strategy}, {self.mitigation}"

    @property
    def settled(self) -> pd.DataFrame:
        cycle = self.cycles["cycle"]
        first = cycle.min() + SETTLING_SHARE * (np.ptp(cycle) + 1)
        settled: pd.DataFrame = self.cycles[cycle >= first]
        return settled

    @property
    def cycle_s(self) -> float:
        """Mean seconds of a cycle, maintenance included."""
        return float((self.cycles["latency_s"] + self.cycles["maintenance_s"]).mean())

    def trend(self, quantity: str) -> Estimate:
        """Trend of a quantity per 100 cycles; not-a-number where it has no readings."""
        rows = self.settled
        values = pd.to_numeric(rows[quantity], errors="coerce")
        fit = slope(list(rows["cycle"]), list(values))
        return Estimate(fit.value * PER_CYCLES, fit.error * PER_CYCLES, fit.freedom, fit.n)

    def slope(self, quantity: str) -> Interval:
        """The 95 % interval of that trend."""
        return self.trend(quantity).interval()

    @property
    def occupied(self) -> str:
        """The quantity that fills the device: torch's reserve on a GPU, the process on a CPU."""
        on_gpu = self.cycles["device"].astype(str).str.startswith(("cuda", PREFIX)).any()
        return "reserved_bytes" if on_gpu else "resident_bytes"

    def latency(self) -> tuple[Interval, float]:
        """Median with its interval, and the 95th percentile (not-a-number of few), in seconds."""
        seconds = self.settled["latency_s"]
        return bootstrap_interval(seconds), tail(seconds)

    def maintenance_s(self) -> float:
        """Seconds of maintenance per cycle, on the average of all cycles."""
        return float(self.cycles["maintenance_s"].mean())

    def after_maintenance(self) -> float | None:
        """Median latency right after maintenance as a multiple of that of the same requests at
        other times; None where there is too little to compare."""
        rows = self.settled
        kept_house = rows["maintenance_s"] > 0
        # a restart is done before its cycle, emptying the cache after it
        after = (
            kept_house if self.mitigation == "restart" else kept_house.shift(1, fill_value=False)
        )
        usual = rows[~after].groupby("request_id")["latency_s"].median()
        ratios = (rows["latency_s"] / rows["request_id"].map(usual))[after].dropna()
        return float(ratios.median()) if len(ratios) else None


def arms(cycles: pd.DataFrame) -> Iterator[Arm]:
    """The arms in order of appearance."""
    for (strategy, mitigation), own in cycles.groupby(["strategy", "mitigation"], sort=False):
        yield Arm(
            strategy=str(strategy), mitigation=str(mitigation), cycles=own.sort_values("cycle")
        )


def growing(found: Iterable[Arm]) -> list[Arm]:
    """Those of several arms whose memory grows, judged at once."""
    own = {arm.name: arm for arm in found}
    held = holm({name: 2 * arm.trend(arm.occupied).above() for name, arm in own.items()})
    return [arm for name, arm in own.items() if name in held]


@dataclass(frozen=True)
class Forecast:
    """Cycles until the margin is used up: the estimate, and the earliest by the trend's interval;
    infinite where nothing grows."""

    expected_cycles: float
    earliest_cycles: float


def forecast(arm: Arm, margin_bytes: float) -> Forecast:
    """In how many cycles the trend of `arm.occupied` has eaten the margin."""
    slope = arm.slope(arm.occupied)

    def cycles(growth: float) -> float:
        if not math.isfinite(growth):
            return math.nan
        return math.inf if growth <= 0 else margin_bytes / growth * PER_CYCLES

    return Forecast(
        expected_cycles=cycles(slope.value) if slope.low > 0 else math.inf,
        earliest_cycles=cycles(slope.high),
    )
