"""Judges of the claims, one per rule; where nothing is measured, the planner's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.claims import Claim
from hybridlab.analysis.judges import figures, order, trends
from hybridlab.analysis.judges.evidence import Bench, Finding, Planner, Verdict, admit
from hybridlab.simulation import NO_TEXTS, NO_TIMES

__all__ = ["FORESEERS", "JUDGES", "Bench", "Finding", "Planner", "Verdict", "decide"]

#: The card of the original analysis: predictions speak of it where a claim names no other.
CLAIMED_CARD = "t4"

JUDGES: Mapping[str, Callable[[Any, Bench], Finding]] = {
    "sum": figures.judge_sum,
    "share": figures.judge_share,
    "dtype-bytes": figures.judge_dtype_bytes,
    "footprint": figures.judge_footprint,
    "size-order": figures.judge_size_order,
    "fits": figures.judge_fits,
    "latency": figures.judge_latency,
    "extreme": order.judge_extreme,
    "residency": order.judge_residency,
    "safest": order.judge_safest,
    "oom-risk": order.judge_oom_risk,
    "full-speed": order.judge_full_speed,
    "faster": order.judge_faster,
    "growth": trends.judge_growth,
    "cure": trends.judge_cure,
    "quality": trends.judge_quality,
}

FORESEERS: Mapping[str, Callable[[Any, Bench, catalog.Card], str]] = {
    "footprint": figures.foresee_footprint,
    "size-order": figures.foresee_size_order,
    "fits": figures.foresee_fits,
    "latency": figures.foresee_latency,
}


#: Rules that judge times, and those that judge texts.
_OF_TIMES = ("latency", "full-speed", "faster")
_OF_TEXTS = ("quality",)


def _beyond_simulation(rule: Any, bench: Bench) -> str:
    """Why a simulated card cannot decide this rule; '' where it can, and elsewhere."""
    if not bench.is_simulated:
        return ""
    if rule.test in _OF_TIMES or getattr(rule, "figure", "") == "latency":
        return NO_TIMES
    # values are computed for the pocket pair alone, and texts of full size are not kept
    return NO_TEXTS if rule.test in _OF_TEXTS else ""


def decide(claim: Claim, bench: Bench) -> Finding:
    """The finding on one claim; what cannot be measured here is foretold, and says so."""
    admitted, lack = admit(claim.needs, bench)
    lack = _beyond_simulation(claim.rule, bench) or lack
    if not lack:
        return JUDGES[claim.rule.test](claim.rule, admitted)
    foresee = FORESEERS.get(claim.rule.test)
    card = catalog.card(claim.needs.card or CLAIMED_CARD)
    predicted = foresee(claim.rule, bench, card) if foresee else ""
    return Finding(
        verdict="not testable here",
        measured=predicted,
        reason=lack,
        evidence="planner" if predicted else "",
    )
