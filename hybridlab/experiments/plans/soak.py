"""03, last part: does memory creep over many requests, and which remedy helps at what cost?"""

from __future__ import annotations

from typing import Any, cast

from hybridlab import catalog
from hybridlab.config.params import LimitsParams
from hybridlab.experiments.case import Case
from hybridlab.experiments.session import Session


def measure(session: Session) -> list[dict[str, Any]]:
    """The same cycles of mixed requests once per strategy and remedy."""
    params = cast(LimitsParams, session.params)
    return session.runner.run_all(
        [
            case
            for strategy in params.soak_strategies
            for mitigation in params.soak_mitigations
            for case in _cases(session, params, strategy, mitigation)
        ]
    )


def _cases(session: Session, params: LimitsParams, strategy: str, mitigation: str) -> list[Case]:
    """One case; for `restart` one after the other, since a case is a worker process of its own."""
    every = params.mitigate_every if mitigation == "restart" else params.soak_cycles
    return [
        session.case(
            "soak",
            work="soak",
            strategy=strategy,
            variant=catalog.strategy(strategy).plain.name,
            warmup=0,
            round=number,
            requests=session.requests(params.soak_requests, max_audio_s=params.soak_max_audio_s),
            options={
                "mitigation": mitigation,
                "every": params.mitigate_every,
                "first_cycle": first,
                "cycles": min(every, params.soak_cycles - first),
            },
        )
        for number, first in enumerate(range(0, params.soak_cycles, every))
    ]
