"""05: which phase of one tenant slows which phase of the other."""

from __future__ import annotations

from typing import Any

from hybridlab.config.params import ParallelParams
from hybridlab.experiments.lab import Lab
from hybridlab.experiments.race import Arm, arm_case


def measure(lab: Lab, params: ParallelParams) -> dict[str, Any] | None:
    """One case: both tenants and a copying thread, each alone and every two at once."""
    if not params.interference_repeats or lab.lacks_clock("interference of phases"):
        return None
    case = arm_case(
        lab,
        "interference",
        Arm("parallel", "threads"),
        work="collide",
        requests=lab.requests(params.interference_requests, max_audio_s=params.arrival_max_audio_s),
        options={"repeats": params.interference_repeats},
    )
    return lab.runner.run(case)
