"""Speed of the lab itself, as JSON on stdout: `python -m benchmarks.run`.

Every figure is a median over repeats in this run, with the repeats beside it; compare ratios, since
machines differ and drift.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.report import interval, publish, seconds, summary
from hybridlab.devices import CpuDevice
from hybridlab.processes.fork_server import CaseServer
from hybridlab.profiling.memory_profiler import MemoryProfiler

REPEATS = 5
WORKLOAD_PRODUCTS = 400
METER_PAIRS = 40


def interpreter(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def planner_cold_start() -> dict[str, Any]:
    """The whole table as JSON from a fresh interpreter."""
    command = (
        "import sys; from hybridlab.cli import main; sys.argv = ['', 'plan', '--json']; main()"
    )
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
    """The same arithmetic with and without the sampler at work.

    Short stretches in the order A B B A, so that a drifting machine weighs on both alike; the
    median of their ratios with its interval, and the processor time of the sampler's own thread,
    which noise does not touch.
    """
    matrix = np.random.default_rng(0).standard_normal((256, 256))

    def work() -> None:
        for _ in range(WORKLOAD_PRODUCTS):
            _ = matrix @ matrix

    def metered() -> tuple[float, float, float]:
        with MemoryProfiler(CpuDevice()) as meter:
            took = seconds(work)
        sampler = meter.sampler
        return took, sampler.cpu_s / took, sampler.achieved_interval_s() or 0.0

    work()
    added, shares, intervals = [], [], []
    for _ in range(METER_PAIRS):
        before = seconds(work)
        first, second = metered(), metered()
        after = seconds(work)
        added.append((first[0] + second[0]) / (before + after) - 1)
        shares += [first[1], second[1]]
        intervals += [first[2], second[2]]
    return {
        **interval("overhead", added),
        "sampler_cpu_share": statistics.median(shares),
        "sampler_interval_s": statistics.median(intervals),
        "pairs": len(added),
    }


def main() -> None:
    publish(
        planner_cold_start=planner_cold_start(),
        case_start=case_start(),
        meter_overhead=meter_overhead(),
    )


if __name__ == "__main__":
    main()
