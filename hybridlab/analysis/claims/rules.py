"""The registry of rules by which claims are judged: one decorated function each.

    @rule("sum")
    def stated_sum(run: RunData, *, terms: Terms, stated: float) -> ClaimResult: ...

`rule: {test: sum, terms: [1, 2], stated: 3}` in a claims file is then checked against the
function's keyword-only parameters, which are pydantic fields, and judged by it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from hybridlab import catalog
from hybridlab.analysis.claims.evidence import ClaimResult, Needs, RunData, filter_rows
from hybridlab.simulation import NO_TEXTS, NO_TIMES

#: The card of the document: predictions speak of it where a claim names no other.
CLAIMED_CARD = "t4"
#: What a rule judges; a simulated card has bytes alone.
Subject = Literal["bytes", "times", "texts"]
#: Called with the run and what the claim states.
Check = Callable[..., ClaimResult]
#: Called with the run, a card and what the claim states: the planner's prediction in words, which
#: say 'predicted'; '' where it predicts nothing.
Predict = Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule; `parameters` is the pydantic model of what a claims file states for it."""

    check: Check
    parameters: type[BaseModel]
    subject: Subject
    predict: Predict | None

    def evaluate(self, run: RunData, needs: Needs, parameters: BaseModel) -> ClaimResult:
        """The verdict from the rows that a claim with these needs may be judged by; where nothing
        can be measured, the planner's prediction."""
        stated = {name: value for name, value in parameters if name != "test"}
        admitted, lack = filter_rows(needs, run)
        if run.is_simulated:
            if self.subject == "times" or stated.get("figure") == "latency":
                lack = NO_TIMES
            elif self.subject == "texts":  # kept of the pocket pair alone
                lack = NO_TEXTS
        if not lack:
            return self.check(admitted, **stated)
        card = catalog.card(needs.card or CLAIMED_CARD)
        predicted = self.predict(run, card, **stated) if self.predict else ""
        basis = "planner" if predicted else ""
        return ClaimResult(
            verdict="not testable here", measured=predicted, reason=lack, basis=basis
        )


RULES: dict[str, Rule] = {}


def rule(
    test: str, *, subject: Subject = "bytes", predict: Predict | None = None
) -> Callable[[Check], Check]:
    """Register the decorated function as the rule that claims call `test`."""

    def register(check: Check) -> Check:
        RULES[test] = Rule(
            check=check, parameters=_model(test, check), subject=subject, predict=predict
        )
        return check

    return register


def _model(test: str, check: Check) -> type[BaseModel]:
    """The function's keyword-only parameters, and the name that tells its rule from others."""
    hints = get_type_hints(check, include_extras=True)
    fields: dict[str, Any] = {"test": (Literal[test], ...)}
    fields |= {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(check).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    strict = ConfigDict(extra="forbid", frozen=True)
    made: type[BaseModel] = create_model(test, __config__=strict, **fields)
    return made
