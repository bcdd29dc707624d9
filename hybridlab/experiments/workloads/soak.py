"""Work of a case that ages: many requests in one process, and what each left behind in memory."""

from __future__ import annotations

import time
from dataclasses import asdict

from hybridlab.experiments.case_context import CaseContext, write_trial
from hybridlab.experiments.workloads import common
from hybridlab.processes.segments import expand_segments
from hybridlab.strategies import CompletedRequest


def run(context: CaseContext) -> None:
    """Mixed requests in turn, one a cycle, with one maintenance remedy; a row of `cycles` each.

    Under `swapping` a cycle loads and unloads Whisper as well. `first_cycle` is above 0 where this
    process replaces a worker that was ended: the time it took to be ready is then maintenance.
    """
    case = context.case
    mitigation, first = str(case.options["mitigation"]), int(case.options["first_cycle"])
    if mitigation == "expandable-segments":
        expand_segments(context.device)
    strategy = common.strategy_of(context)
    common.load(context, strategy)
    maintenance_s = context.since_start(time.perf_counter()) if first else 0.0
    common.read_clips(context)
    first_tokens: dict[str, Tokens | None] = {}
    for cycle in range(first, first + int(case.options["cycles"])):
        spec = case.requests[cycle % len(case.requests)]
        request = common.request_of(context, spec)
        served = common.measured_request(context, strategy, request)
        write_trial(context, spec, served, is_first_request=cycle == first, cycle=cycle)
        context.enter("maintenance")
        if mitigation == "empty-cache" and (cycle - first + 1) % int(case.options["every"]) == 0:
            began = time.perf_counter()
            context.device.release()
            maintenance_s += time.perf_counter() - began
        tokens = _tokens(served)
        before = first_tokens.setdefault(spec.id, tokens)
        same = None if tokens is None or before is None else before == tokens
        _write_cycle(context, cycle, served, maintenance_s=maintenance_s, output_unchanged=same)
        maintenance_s = 0.0
    context.result["n_trials"] = int(case.options["cycles"])
    common.close(context, strategy)


#: Of a transcript and of an answer.
Tokens = tuple[tuple[int, ...], tuple[int, ...]]


def _tokens(served: CompletedRequest) -> Tokens | None:
    """None where one was cut short."""
    if {served.transcript.finish_reason, served.answer.finish_reason} != {"stop"}:
        return None
    return served.transcript.tokens, served.answer.tokens


def _write_cycle(
    context: CaseContext,
    cycle: int,
    served: CompletedRequest,
    *,
    maintenance_s: float,
    output_unchanged: bool | None,
) -> None:
    wear = context.device.memory_stats()
    context.writer.append(
        "cycles",
        {
            "strategy": context.case.strategy,
            "mitigation": context.case.options["mitigation"],
            "cycle": cycle,
            "request_id": served.request.id,
            "latency_s": served.latency_s,
            "maintenance_s": maintenance_s,
            "output_unchanged": output_unchanged,
            **asdict(wear),
            "fragmentation": wear.fragmentation,
        },
    )
