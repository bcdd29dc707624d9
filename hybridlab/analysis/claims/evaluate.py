"""Judges a claim by its rule; where nothing can be measured, quotes the planner's prediction."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.analysis.claims.claims_file import Claim
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, filter_rows
from hybridlab.analysis.claims.rules import RULES

#: The card of the original analysis: predictions speak of it where a claim names no other.
CLAIMED_CARD = "t4"


def evaluate_claim(claim: Claim, run: RunData) -> ClaimResult:
    """The verdict on one claim."""
    rule = RULES[claim.rule.test]
    admitted, lack = filter_rows(claim.needs, run)
    lack = (run.is_simulated and rule.untestable_on_simulated(claim.rule)) or lack
    if not lack:
        return rule.judge(admitted, claim.rule)
    card = catalog.card(claim.needs.card or CLAIMED_CARD)
    predicted = rule.predicted(run, card, claim.rule)
    return ClaimResult(
        verdict="not testable here",
        measured=predicted,
        reason=lack,
        basis="planner" if predicted else "",
    )
