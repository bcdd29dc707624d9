"""Tables of the soak: what is lost over many cycles, and what each remedy costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.rows import complete_tables
from hybridlab.units import MIB


@complete_tables
def soak_table(cycles: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and remedy: what is lost over time, and what the remedy costs."""
    rows = []
    for arm in memory_growth.arms(cycles):
        median, p95 = arm.latency()
        last, after = arm.cycles.iloc[-1], arm.after_maintenance()
        rows.append(
            {
                "strategy": arm.strategy,
                "mitigation": arm.mitigation,
                "cycles": len(arm.cycles),
                "fragmentation": labels.percent(last["fragmentation"]),
                "largest block GiB": labels.gib(last["largest_block_bytes"]),
                "median s": labels.interval(median),
                "p95 s": labels.number(p95),
                "maintenance ms a cycle": labels.number(arm.maintenance_s() * 1e3),
                "latency after it": "" if after is None else f"{after:.2f} x",
                "out of memory": _forecast_words(arm, cases),
            }
        )
    return pd.DataFrame(rows)


@complete_tables
def growth_table(cycles: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy and remedy: the trend of each quantity per 100 cycles, with interval."""
    rows = []
    for arm in memory_growth.arms(cycles):
        row = {"strategy": arm.strategy, "mitigation": arm.mitigation}
        for quantity, name in memory_growth.QUANTITIES.items():
            unit, label = (1e-3, "ms") if quantity == "latency_s" else (MIB, "MiB")
            slope = arm.slope(quantity)
            words = "too few cycles" if arm.settled[quantity].notna().any() else "no reading"
            if np.isfinite(slope.value):
                low, high = slope.low / unit, slope.high / unit
                words = f"{slope.value / unit:+.3g} [{low:+.3g}, {high:+.3g}]"
            row[f"{name} {label}/100"] = words
        rows.append(row)
    return pd.DataFrame(rows)


def _forecast_words(arm: memory_growth.Arm, cases: pd.DataFrame) -> str:
    """'in 3.1 h', or what the trend's interval rules out."""
    own = cases[cases["case_id"].isin(arm.cycles["case_id"])]
    margins = numbers(own, "margin_bytes")
    if margins.isna().all():
        return "no margin is known"
    ahead = memory_growth.forecast(arm, float(margins.min()))
    earliest = _ahead(ahead.earliest_cycles, arm)
    if np.isfinite(ahead.expected_cycles):
        return f"in {_ahead(ahead.expected_cycles, arm)} at this pace, {earliest} at the least"
    if np.isnan(ahead.earliest_cycles):
        return "too few cycles for a forecast"
    if np.isinf(ahead.earliest_cycles):
        return "never, by this trend"
    return f"not before {earliest}"


def _ahead(cycles: float, arm: memory_growth.Arm) -> str:
    """Hours at the arm's own pace; without a clock, cycles."""
    if np.isnan(arm.cycle_s):
        return f"{cycles:,.0f} cycles"
    hours = cycles * arm.cycle_s / 3600
    return f"{hours:.2g} h" if hours < 48 else f"{hours / 24:,.0f} days"
