"""05 and 06, last part: arms under requests that come at their own times (an open loop), and what
a request of each length takes, from which the break-even map follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from hybridlab.analysis.arms import standings
from hybridlab.config.params import ParallelParams, RaceParams, SwappingParams
from hybridlab.experiments.plans.strategy_comparison import CONTROL, Arm, arm_case
from hybridlab.experiments.session import Session


def measure(session: Session, arms: list[Arm], params: RaceParams) -> list[dict[str, Any]]:
    """The control and the fastest others at every load, a share of what `sequential/plain` served
    in this notebook's race with no pause between requests; arms whose models are servers, which
    take seconds to start, at the loads that `container_loads` names too. All meet the same
    arrivals, and a higher load meets them faster."""
    capacity = capacity_rps(session)
    lacks_clock = session.lacks_clock("requests at their own times")
    if not params.arrival_loads or lacks_clock or not capacity:
        return []
    served = [arm for arm in arms if arm.facts.in_servers and _raced(session, arm)]
    others = [arm for arm in arms if arm != CONTROL and not arm.facts.in_servers]
    contenders = [CONTROL, *fastest(session, others, params.arrival_arms)]
    loads = params.container_loads if isinstance(params, ParallelParams) else []
    requests = session.requests(params.arrival_requests, max_audio_s=params.arrival_max_audio_s)
    return session.runner.run_all(
        [
            arm_case(
                session,
                "load_sweep",
                arm,
                work="poisson_arrivals",
                requests=requests,
                round=number,
                options={"rate_rps": load * capacity, "load": load, "seed": params.seed},
            )
            for number, load in enumerate(params.arrival_loads)
            for arm in (*contenders, *(served if load in loads else []))
        ]
    )


def _raced(session: Session, arm: Arm) -> bool:
    """Whether this arm served in the race: what cannot run here is not tried again."""
    return bool(_cases_of(session, arm)["status"].isin(["ok", "invalid"]).any())


def _cases_of(session: Session, arm: Arm) -> pd.DataFrame:
    """Its cases in this notebook's race."""
    cases = session.table("cases")
    own = (cases["strategy"] == arm.strategy) & (cases["variant"] == arm.variant)
    return cases[own & (cases["experiment"] == "strategy_comparison")]


def lengths(session: Session, arms: list[Arm], params: SwappingParams) -> list[dict[str, Any]]:
    """Requests of several lengths, one after the other, under every arm; the clip is repeated."""
    if not params.break_even_audio_s or session.lacks_clock("requests of several lengths"):
        return []
    (asked,) = session.requests(1)
    requests = tuple(
        replace(
            asked,
            id=f"{asked.id}-{audio_s:g}s-{number}",
            clip_id=f"{asked.clip_id}-{audio_s:g}s",
            audio_s=audio_s,
            reference=None,
            expected_answer=None,
            resized=True,
        )
        for number in range(params.break_even_repeats)
        for audio_s in params.break_even_audio_s
    )
    return session.runner.run_all(
        [arm_case(session, "service_times", arm, requests=requests) for arm in arms]
    )


def fastest(session: Session, arms: list[Arm], most: int) -> list[Arm]:
    """Up to `most` of these arms with the lowest latency over the control's in this notebook's
    race; one that failed in any round or whose texts differ is not among them."""
    raced = {(arm.strategy, arm.variant): arm for arm in arms}
    found = [
        standing
        for standing in standings(session.table("cases"), session.table("trials"))
        if (standing.strategy, standing.variant) in raced and not standing.failed
    ]
    found.sort(key=lambda standing: standing.relative.value)
    return [raced[standing.strategy, standing.variant] for standing in found[:most]]


def capacity_rps(session: Session) -> float | None:
    """Requests per second of the control in a closed loop; None where it was not measured."""
    own = _cases_of(session, CONTROL).query("status == 'ok'")
    return None if own.empty else float(own["throughput_rps"].median())
