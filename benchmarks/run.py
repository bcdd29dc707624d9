"""Speed of the lab itself, as JSON on stdout: `python -m benchmarks.run`.

Every figure is a median over repeats in this run, with the repeats beside it; compare ratios, since
machines differ and drift.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hybridlab.device import CpuDevice
from hybridlab.isolate import CaseServer
from hybridlab.meter import Meter
from hybridlab.records import machine, versions

REPEATS = 5
WORKLOAD_S = 1.0


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def summary(values: list[float]) -> dict[str, Any]:
    return {"median_s": statistics.median(values), "values_s": [round(v, 4) for v in values]}


def interpreter(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def planner_cold_start() -> dict[str, Any]:
    """The whole table as JSON from a fresh interpreter."""
    command = "from hybridlab.cli import app; app(['plan', '--json'], standalone_mode=False)"
    return summary([seconds(lambda: interpreter(command)) for _ in range(REPEATS)])


def case_start() -> dict[str, Any]:
    """An empty case from the server against a fresh interpreter with the same imports."""
    with CaseServer() as server:
        server.run(os.getpid)
        forked = [seconds(lambda: server.run(os.getpid)) for _ in range(REPEATS)]
    imports = "import torch; from transformers import VoxtralForConditionalGeneration"
    fresh = [seconds(lambda: interpreter(imports)) for _ in range(3)]
    ratio = statistics.median(fresh) / statistics.median(forked)
    return {"forked": summary(forked), "fresh": summary(fresh), "fresh_over_forked": ratio}


def meter_overhead() -> dict[str, Any]:
    """The same arithmetic with and without the sampler at work, in turn."""
    matrix = np.random.default_rng(0).standard_normal((256, 256))

    def work() -> int:
        """Products done in a fixed time."""
        count, until = 0, time.perf_counter() + WORKLOAD_S
        while time.perf_counter() < until:
            _ = matrix @ matrix
            count += 1
        return count

    plain, metered, intervals = [], [], []
    for _ in range(REPEATS):
        plain.append(work())
        with Meter(CpuDevice()) as meter:
            metered.append(work())
        intervals.append(meter.sampler.achieved_interval_s() or 0.0)
    return {
        "overhead": 1 - statistics.median(m / p for m, p in zip(metered, plain, strict=True)),
        "ratios": [round(m / p, 4) for m, p in zip(metered, plain, strict=True)],
        "sampler_interval_s": statistics.median(intervals),
    }


def main() -> None:
    results = {
        "machine": machine(),
        "versions": versions(),
        "planner_cold_start": planner_cold_start(),
        "case_start": case_start(),
        "meter_overhead": meter_overhead(),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
