"""Work of a case that steps down to the next smaller recogniser where memory runs out, and loses no
request."""

from __future__ import annotations

from dataclasses import replace

from hybridlab.devices.out_of_memory import OutOfMemory, out_of_memory
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_trial
from hybridlab.experiments.memory_breakdown import write_ledgers
from hybridlab.experiments.workloads import common
from hybridlab.experiments.workloads.limit_search import allocator_cache_bytes, write_probe
from hybridlab.strategies import Strategy


def run(context: CaseContext) -> None:
    """Serve every request with the largest of the case's `candidates` that memory allows, which is
    the recogniser of `context.case` then; a row of `probes` for each step down. What was answered
    stays so. `MemoryError` when none fits."""
    case, left = context.case, list(context.case.requests)
    for steps, candidate in enumerate(case.candidates):
        context.case = replace(case, asr=candidate)
        strategy = common.strategy_of(context)
        failed = _serve(context, strategy, left)
        if failed is None:
            context.result |= {"n_trials": len(case.requests), "fallbacks": steps}
            context.result["served_by_model"] = candidate.model
            common.rest(context, strategy)
            if not steps:  # a ledger is one pair's, and the peaks would be another's
                write_ledgers(context, strategy)
            strategy.close()
            return
        strategy.close()
        failure, cached_bytes = failed
        loading = context.stage == "load" and len(left) == len(case.requests)
        write_probe(
            context,
            failure,
            cached_bytes,
            limit_kind="fallback",
            value=None,
            repeat=0,
            free_bytes=None,
            from_size=candidate.model,
            to_size=next((spec.model for spec in case.candidates[steps + 1 :]), None),
            at_request="load" if loading else left[0].id,
        )
        context.device.release()
        context.meter.forget()  # its peaks are not those of the pair that serves from now on
    raise MemoryError(f"not even {candidate.model} fits beside Voxtral: {failure.message}")


def _serve(
    context: CaseContext, strategy: Strategy, left: list[RequestSpec]
) -> tuple[OutOfMemory, int | None] | None:
    """Load the strategy and serve what is `left`, taking out what is answered. The failure where
    memory runs out, with what the allocator held unused then."""
    try:
        common.bring_up(context, strategy)
        while left:
            served = common.measured_request(context, strategy, common.request_of(context, left[0]))
            first = len(left) == len(context.case.requests)
            write_trial(context, left[0], served, is_first_request=first)
            left.pop(0)
    except Exception as error:  # libraries wrap an allocation failure in whatever they like
        failure = out_of_memory(error)
        if failure is None:
            raise
        # here, while the error still holds what the failed work had taken
        return failure, allocator_cache_bytes(context.device)
    return None
