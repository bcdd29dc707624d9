"""The same pairs on this card and on a simulated one of its kind, a line of JSON for each:
`python -m benchmarks.gpu_check.pairs --card h100 --folder DIR`.

Full size, random weights, one request: both sides say as many tokens. Where this card is simulated
itself both sides are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.findings import ALLOCATED, RESERVED
from hybridlab.catalog.device_names import PREFIX
from hybridlab.config.params import BesideParams
from hybridlab.experiments.plans import co_residency
from hybridlab.experiments.session import Session

SIZES = ("small", "large-v3", "tiny")


def measured(size: str, device: str, folder: Path) -> dict[str, Any]:
    """The row of `cases` of Voxtral-Mini-3B with this Whisper beside it."""
    values = {
        "llm_model": "mini-3b",
        "llm_weights": "random",
        "asr_model": size,
        "asr_backend": "transformers",
        "asr_weights": "random",
        "asr_models": [size],
        "sizes_new_tokens": 16,
        "load_orders": [],
        "device": device,
        "max_other_cpu_share": 1.0,
        "output_dir": str(folder),
        "headless": True,
    }
    session = Session.open(BesideParams.from_mapping(values))
    (row,) = co_residency.measure(session)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", required=True, help="a card of the catalog")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    sides = {"here": "cuda", "simulated": PREFIX + options.card}
    for size in SIZES:
        for side, device in sides.items():
            row = measured(size, device, options.folder / f"{size}-{side}")
            kept = {name: row.get(name) for name in ("status", "reason", *ALLOCATED, *RESERVED)}
            print(json.dumps({"pair": f"mini-3b + {size}", "side": side, **kept}), flush=True)


if __name__ == "__main__":
    main()
