"""The registry of rules by which claims are judged: one decorated function each.

    @rule("sum")
    def stated_sum(run: RunData, *, terms: Terms, stated: float) -> ClaimResult: ...

`rule: {test: sum, terms: [1, 2], stated: 3}` in a claims file is then checked against the
function's keyword-only parameters, which are pydantic fields, and judged by it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from hybridlab import catalog
from hybridlab.analysis.claims.evidence import ClaimResult, RunData
from hybridlab.simulation import NO_TEXTS, NO_TIMES

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

    def judge(self, run: RunData, parameters: BaseModel) -> ClaimResult:
        """The verdict from rows that the claim may be judged by."""
        return self.check(run, **_stated(parameters))

    def predicted(self, run: RunData, card: catalog.Card, parameters: BaseModel) -> str:
        """The planner's prediction; '' without any."""
        return self.predict(run, card, **_stated(parameters)) if self.predict else ""

    def untestable_on_simulated(self, parameters: BaseModel) -> str:
        """Why a simulated card cannot decide; '' where it can."""
        if self.subject == "times" or _stated(parameters).get("figure") == "latency":
            return NO_TIMES
        # values are computed for the pocket pair alone, and texts of full size are not kept
        return NO_TEXTS if self.subject == "texts" else ""


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


def _stated(parameters: BaseModel) -> Mapping[str, Any]:
    return {name: value for name, value in parameters if name != "test"}
