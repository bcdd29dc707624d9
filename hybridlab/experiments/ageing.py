"""03, last part: does memory creep over many requests, and which remedy helps at what cost?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab.config.params import LimitsParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.lab import Lab


def measure(lab: Lab) -> list[dict[str, Any]]:
    """The same cycles of mixed requests once per strategy and remedy."""
    params = cast(LimitsParams, lab.params)
    return lab.runner.run_all(
        [
            case
            for strategy in params.ageing_strategies
            for remedy in params.ageing_remedies
            for case in _cases(lab, params, strategy, remedy)
        ]
    )


def _cases(lab: Lab, params: LimitsParams, strategy: str, remedy: str) -> list[Case]:
    """One case; for `restart` one after the other, since a case is a worker process of its own."""
    every = params.remedy_every if remedy == "restart" else params.ageing_cycles
    return [
        lab.case(
            "ageing",
            work="ageing",
            strategy=strategy,
            variant="reload-warm" if strategy == "swapping" else "plain",
            warmup=0,
            round=number,
            requests=lab.requests(params.ageing_requests, max_audio_s=params.ageing_max_audio_s),
            options={
                "remedy": remedy,
                "every": params.remedy_every,
                "first_cycle": first,
                "cycles": min(every, params.ageing_cycles - first),
            },
        )
        for number, first in enumerate(range(0, params.ageing_cycles, every))
    ]
