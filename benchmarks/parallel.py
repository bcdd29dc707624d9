"""What working at once gains, as JSON on stdout: `python -m benchmarks.parallel`.

The pocket pair under sequential/plain and the variants of parallel, interleaved in rounds; ratios
of throughput are taken within a round, since machines differ and drift. No other work should run.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from typing import Any

from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.config.params import ParallelParams
from hybridlab.devices.system_info import machine, versions
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.session import Session

ROUNDS = 5
TRIALS = 16
VARIANTS = ("threads", "processes")


def throughputs(folder: str, variants: tuple[str, ...], rounds: int) -> dict[str, list[Any]]:
    """Requests per second of each arm in each round, and the share of the processors that others
    used meanwhile."""
    values = {"output_dir": folder, "headless": True, "max_other_cpu_share": 1.0, "trials": TRIALS}
    session = Session.open(ParallelParams.from_mapping(values))
    arms = [
        strategy_comparison.CONTROL,
        *(strategy_comparison.Arm("parallel", variant) for variant in variants),
    ]
    found: dict[str, list[Any]] = {"other_processes_cpu_share": []}
    for row in strategy_comparison.run(session, arms, rounds=rounds):
        if row["status"] != "ok":
            raise SystemExit(f"{row['case_id']}: {row['status']}: {row['reason']}")
        if row["experiment"] == "strategy_comparison":
            arm = f"{row['strategy']}/{row['variant']}"
            found.setdefault(arm, []).append(row["throughput_rps"])
            found["other_processes_cpu_share"].append(row["other_processes_cpu_share"])
    session.close()
    return found


def main() -> None:
    variants = tuple(sys.argv[1:]) or VARIANTS
    with tempfile.TemporaryDirectory(prefix="hybridlab-bench-") as folder:
        found = throughputs(f"{folder}/run", variants, ROUNDS)
    shares = found.pop("other_processes_cpu_share")
    control = found["sequential/plain"]
    results: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "most_foreign_cpu_share": max(share for share in shares if share is not None),
        "arms": {},
    }
    for arm, values in found.items():
        ratio = bootstrap_interval(
            [own / other for own, other in zip(values, control, strict=True)]
        )
        results["arms"][arm] = {
            "median_rps": statistics.median(values),
            "values_rps": [round(value, 3) for value in values],
            "over_sequential": ratio.value,
            "over_sequential_interval": [ratio.low, ratio.high],
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
