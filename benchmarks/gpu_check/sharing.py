"""Every way of sharing once, at full size inside a T4's memory, a line of JSON for each:
`python -m benchmarks.gpu_check.sharing --folder DIR`.

The parameters of params/t4-memory-limit.yaml with few requests and no rounds, and the arms of the
notebooks 04 to 06 in one race behind its parity gate; one of each strategy comes first.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.config.params import StrategyParams
from hybridlab.config.preset_files import read_yaml
from hybridlab.experiments.plans import strategy_comparison
from hybridlab.experiments.plans.strategy_comparison import Arm
from hybridlab.experiments.session import Session

T4_MEMORY_LIMIT = Path(__file__).resolve().parents[2] / "params" / "t4-memory-limit.yaml"
#: Options of arms that are not their implementation's defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "swapping/single-buffer-overlapped": {"swap": "both"},
    "sequential/batched": {"batch": 2},
    "sequential/asyncio": {"max_in_flight": 2},
}
FEW = {
    **{"trials": 2, "warmup": 1, "rounds": 1, "max_other_cpu_share": 1.0},
    **{"max_new_tokens": 16, "asr_max_new_tokens": 16},
}
COLUMNS = ("status", "reason", "request_peak_bytes", "external_bytes", "margin_bytes")


def arms() -> list[Arm]:
    """Every variant that keeps this Whisper's weights on the card or beside it: no server of its
    own, no other library, nothing read from files again."""
    ranked = []
    for name, facts in catalog.STRATEGIES.items():
        own = [
            one
            for one in facts
            if one.shares_device
            and not (one.in_servers or one.backend)
            and (one.host_copy or not one.offloader)
        ]
        for rank, one in enumerate(sorted(own, key=lambda one: not one.default)):
            ranked.append((rank, Arm(name, one.name, OPTIONS.get(f"{name}/{one.name}", {}))))
    return [arm for _, arm in sorted(ranked, key=lambda place: place[0])]


def parameters(folder: Path) -> StrategyParams:
    values = {**read_yaml(T4_MEMORY_LIMIT), **FEW, "output_dir": str(folder), "headless": True}
    own = StrategyParams.named("gpu_check")
    return own.from_mapping({n: v for n, v in values.items() if n in own.model_fields})


def said(session: Session, row: dict[str, Any]) -> dict[str, Any]:
    """An arm's row: its bytes, its median latency, and whether its tokens are each model's own."""
    trials = session.table("trials")
    own = trials[trials["case_id"] == row["case_id"]]
    output_matches_reference = [bool(value) for value in own["output_matches_reference"].dropna()]
    return {
        "arm": f"{row['strategy']}/{row['variant']}",
        **{name: row.get(name) for name in COLUMNS},
        "latency_s": statistics.median(own["latency_s"]) if len(own) else None,
        "output_matches_reference": all(output_matches_reference)
        if output_matches_reference
        else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    session = Session.open(parameters(parser.parse_args().folder))
    for arm in arms():
        rows = strategy_comparison.run(session, [arm], rounds=1)  # the models alone are run once
        print(json.dumps(said(session, rows[-1])), flush=True)
        if len(rows) == 1:  # the models alone: without their texts there is no race
            break


if __name__ == "__main__":
    main()
