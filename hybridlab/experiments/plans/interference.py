"""05: which phase of one model slows which phase of the other."""

from __future__ import annotations

from typing import Any

from hybridlab.config.params import ParallelParams
from hybridlab.experiments.plans.strategy_comparison import Arm, arm_case
from hybridlab.experiments.session import Session


def measure(session: Session, params: ParallelParams) -> dict[str, Any] | None:
    """One case: both models and a copying thread, each alone and every two at once."""
    if not params.interference_repeats or session.lacks_clock("interference of phases"):
        return None
    case = arm_case(
        session,
        "interference",
        Arm("parallel", "threads"),
        work="interference",
        requests=session.requests(
            params.interference_requests, max_audio_s=params.arrival_max_audio_s
        ),
        options={"repeats": params.interference_repeats},
    )
    return session.runner.run(case)
