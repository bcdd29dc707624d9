"""Judges of the claims, one per rule; where nothing is measured, the planner's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.claims import memory_and_time_rules, ranking_rules, trend_rules
from hybridlab.analysis.claims.evidence import ClaimResult, Planner, RunData, Verdict, filter_rows
from hybridlab.analysis.claims.rules import Claim
from hybridlab.simulation import NO_TEXTS, NO_TIMES

__all__ = ["CHECKS", "PREDICTORS", "ClaimResult", "Planner", "RunData", "Verdict", "evaluate_claim"]

#: The card of the original analysis: predictions speak of it where a claim names no other.
CLAIMED_CARD = "t4"

CHECKS: Mapping[str, Callable[[Any, RunData], ClaimResult]] = {
    "sum": memory_and_time_rules.check_sum,
    "share": memory_and_time_rules.check_share,
    "dtype-bytes": memory_and_time_rules.check_dtype_bytes,
    "footprint": memory_and_time_rules.check_footprint,
    "size-order": memory_and_time_rules.check_size_order,
    "fits": memory_and_time_rules.check_fits,
    "latency": memory_and_time_rules.check_latency,
    "extreme": ranking_rules.check_extreme,
    "residency": ranking_rules.check_residency,
    "safest": ranking_rules.check_safest,
    "oom-risk": ranking_rules.check_oom_risk,
    "full-speed": ranking_rules.check_full_speed,
    "faster": ranking_rules.check_faster,
    "growth": trend_rules.check_growth,
    "cure": trend_rules.check_cure,
    "quality": trend_rules.check_quality,
}

PREDICTORS: Mapping[str, Callable[[Any, RunData, catalog.Card], str]] = {
    "footprint": memory_and_time_rules.predict_footprint,
    "size-order": memory_and_time_rules.predict_size_order,
    "fits": memory_and_time_rules.predict_fits,
    "latency": memory_and_time_rules.predict_latency,
}


#: Rules that judge times, and those that judge texts.
_OF_TIMES = ("latency", "full-speed", "faster")
_OF_TEXTS = ("quality",)


def _beyond_simulation(rule: Any, bench: RunData) -> str:
    """Why a simulated card cannot decide this rule; '' where it can, and elsewhere."""
    if not bench.is_simulated:
        return ""
    if rule.test in _OF_TIMES or getattr(rule, "figure", "") == "latency":
        return NO_TIMES
    # values are computed for the pocket pair alone, and texts of full size are not kept
    return NO_TEXTS if rule.test in _OF_TEXTS else ""


def evaluate_claim(claim: Claim, bench: RunData) -> ClaimResult:
    """The finding on one claim; what cannot be measured here is foretold, and says so."""
    admitted, lack = filter_rows(claim.needs, bench)
    lack = _beyond_simulation(claim.rule, bench) or lack
    if not lack:
        return CHECKS[claim.rule.test](claim.rule, admitted)
    foresee = PREDICTORS.get(claim.rule.test)
    card = catalog.card(claim.needs.card or CLAIMED_CARD)
    predicted = foresee(claim.rule, bench, card) if foresee else ""
    return ClaimResult(
        verdict="not testable here",
        measured=predicted,
        reason=lack,
        evidence="planner" if predicted else "",
    )
