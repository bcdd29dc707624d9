"""03, second half: does memory creep over many requests, and which remedy helps?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab.experiments.lab import Lab
from hybridlab.params import LimitsParams


def measure(lab: Lab) -> list[dict[str, Any]]:
    """The same cycles of mixed requests once per remedy."""
    params = cast(LimitsParams, lab.params)
    cases = [
        lab.case(
            "ageing",
            work="ageing",
            warmup=0,
            options={
                "remedy": remedy,
                "every": params.remedy_every,
                "cycles": params.ageing_cycles,
            },
        )
        for remedy in params.ageing_remedies
    ]
    return lab.runner.run_all(cases)
