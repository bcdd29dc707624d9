"""The fallback chain of a case: its candidates as strategies, a row of `probes` for each step."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from hybridlab.experiments.case_context import CaseContext
from hybridlab.experiments.workloads import common
from hybridlab.experiments.workloads.limit_search import allocator_cache_bytes, write_probe
from hybridlab.models.base import ModelSpec
from hybridlab.strategies.fallback import FallbackChain, FallbackEvent, Serves
from hybridlab.strategies.maintenance import Maintenance, WithMaintenance


def chain_of(context: CaseContext, maintenance: Maintenance) -> FallbackChain:
    """The recognisers of the case under its strategy, variant and placement. While a smaller one
    serves, it is the recogniser of `context.case`."""
    case = context.case
    stack = context.stack.enter_context(ExitStack())  # workers of the candidate that serves

    def make(candidate: ModelSpec) -> Serves:
        context.case = replace(case, asr=candidate)
        return WithMaintenance(common.strategy_of(context, stack=stack), maintenance)

    slack: list[int | None] = []

    def failed() -> None:
        slack.append(allocator_cache_bytes(context.device))

    def stepped(step: FallbackEvent) -> None:
        _write_step(context, step, slack.pop())
        stack.close()
        context.device.release()
        context.meter.forget()  # its peaks are not those of the pair that serves from now on

    return FallbackChain(
        case.candidates,
        make=make,
        load=partial(common.bring_up, context),
        on_step=stepped,
        on_failure=failed,
    )


def _write_step(context: CaseContext, step: FallbackEvent, slack: int | None) -> None:
    labels = {
        "limit_kind": "fallback",
        "value": None,
        "repeat": 0,
        "free_bytes": None,
        "seconds": None,
    }
    labels |= {"from_size": step.left, "to_size": step.taken, "at_request": step.when}
    write_probe(context, step.failure, slack, **labels)
