"""Trends over cycles by known answers: growth, forecast, the cost of a remedy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hybridlab.analysis import memory_growth
from hybridlab.reporting import answers, figures, key_findings, tables
from hybridlab.units import MIB

CYCLES = 200


def cycles(
    *,
    growth_mib: float = 0.0,
    noise_mib: float = 0.5,
    mitigation: str = "none",
    device: str = "cpu",
    after: float = 1.0,
) -> pd.DataFrame:
    """Every 20 cycles half a second of maintenance, after which a request takes `after` times as
    long; the first cycles pay 50 MiB once."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for cycle in range(CYCLES):
        late = after if mitigation != "none" and cycle and cycle % 20 == 0 else 1.0
        grown = 50 * min(cycle, 5) + growth_mib * cycle + rng.normal(0, noise_mib)
        rows.append(
            {
                "case_id": "age",
                "device": device,
                "strategy": "sequential",
                "mitigation": mitigation,
                "cycle": cycle,
                "request_id": f"clip-{cycle % 4}",
                "latency_s": (1.0 + 0.5 * (cycle % 4)) * late,
                "maintenance_s": 0.5 * (mitigation != "none" and cycle % 20 == 19),
                "output_unchanged": cycle != 3,
                "allocated_bytes": 100 * MIB,
                "reserved_bytes": (500 + (grown if device != "cpu" else 0.0)) * MIB,
                "external_bytes": None,
                "resident_bytes": (1000 + grown) * MIB,
                "pinned_bytes": None,
                "largest_block_bytes": 4096 * MIB,
                "fragmentation": 0.8,
            }
        )
    return pd.DataFrame(rows)


def arm_of(table: pd.DataFrame) -> memory_growth.Arm:
    return next(memory_growth.arms(table))


CASES = pd.DataFrame(
    [{"case_id": "age", "experiment": "soak", "status": "ok", "margin_bytes": 1000 * MIB}]
)


def test_a_known_growth_is_found_without_the_settling_of_the_first_cycles() -> None:
    slope = arm_of(cycles(growth_mib=0.2)).slope("resident_bytes")
    assert slope.value / MIB == pytest.approx(20.0, rel=0.05)
    assert abs(slope.value / MIB - 20.0) < 2 * slope.half_width / MIB < 1.0
    assert slope.n == CYCLES * 0.8


def test_no_growth_has_an_interval_over_zero() -> None:
    slope = arm_of(cycles()).slope("resident_bytes")
    assert slope.low < 0 < slope.high


def test_a_quantity_without_readings_has_no_trend() -> None:
    assert math.isnan(arm_of(cycles()).slope("pinned_bytes").value)
    assert "no reading" in tables.growth_table(cycles()).loc[0, "pinned MiB/100"]


def test_the_forecast_is_margin_over_growth_at_the_arms_pace() -> None:
    arm = arm_of(cycles(growth_mib=0.2, noise_mib=0.0))
    ahead = memory_growth.forecast(arm, 1000 * MIB)
    assert ahead.expected_cycles == pytest.approx(1000 / 0.2, rel=0.01)
    flat = memory_growth.forecast(arm_of(cycles()), 1000 * MIB)
    assert flat.expected_cycles == math.inf
    assert 0 < flat.earliest_cycles < math.inf


def test_on_a_gpu_the_reserve_fills_the_device() -> None:
    assert arm_of(cycles(device="cuda:0")).occupied == "reserved_bytes"
    assert arm_of(cycles()).occupied == "resident_bytes"


def test_the_cost_of_a_remedy_is_its_time_and_the_slower_request_after_it() -> None:
    arm = arm_of(cycles(mitigation="empty-cache", after=1.3))
    assert arm.maintenance_s() == pytest.approx(0.5 / 20)
    assert arm.after_maintenance() == pytest.approx(1.3)
    assert arm_of(cycles()).after_maintenance() is None


def test_findings_and_table_say_what_was_seen() -> None:
    table = cycles(growth_mib=0.2)
    assert answers.limits(CASES, pd.DataFrame(), table)[0].startswith("Memory grows by ")
    told = key_findings.soak(table, CASES)
    assert "of 200 cycles said what they said first" in told[0]
    assert told[0].startswith("199")
    row = tables.soak_table(table, CASES).loc[0]
    assert row["cycles"] == CYCLES
    assert row["fragmentation"] == "80.0 %"
    assert row["out of memory"].startswith("in 2.4 h")


@pytest.mark.parametrize("growth_mib", [0.0, 0.01])
def test_one_step_is_no_growth(growth_mib: float) -> None:
    """A single jump tilts the line; nothing is forecast from it."""
    table = cycles(growth_mib=growth_mib, noise_mib=0.01)
    table.loc[table["cycle"] >= 120, "resident_bytes"] += 3 * MIB
    assert arm_of(table).slope("resident_bytes").low < 0
    assert "No growth can be told" in " ".join(figures.soak(table, CASES).get_suptitle().split())
    assert "not before" in tables.soak_table(table, CASES)["out of memory"].iloc[0]


def test_of_several_arms_at_once_a_trend_must_be_clearer() -> None:
    """2.2 standard errors: enough for one arm, not for one of six."""
    noise = np.random.default_rng(1).normal(0, 1, 160)
    x = np.arange(160.0)
    noise -= np.polyval(np.polyfit(x, noise, 1), x)
    error = noise.std(ddof=2) / np.sqrt(((x - x.mean()) ** 2).sum())
    told = {}
    for count in (1, 6):
        arms = []
        for number in range(count):
            table = cycles(mitigation=f"m{number}")
            grown = noise + (2.2 * error * x if number == 0 else 0.0)
            table.loc[table["cycle"] >= 40, "resident_bytes"] = (1000 + grown) * MIB
            arms += list(memory_growth.arms(table))
        told[count] = [arm.mitigation for arm in memory_growth.growing(arms)]
    assert told == {1: ["m0"], 6: []}
