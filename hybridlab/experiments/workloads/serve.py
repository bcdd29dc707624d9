"""Work of a case that serves a stream of requests under one strategy, with the parity gate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.devices import Reading
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_trial
from hybridlab.experiments.memory_breakdown import write_ledgers
from hybridlab.experiments.workloads import common, fallback
from hybridlab.strategies import ArrivalQueue, CompletedRequest, Strategy
from hybridlab.strategies.fallback import FallbackChain, Serves
from hybridlab.strategies.maintenance import Maintenance, WithMaintenance


def run(context: CaseContext) -> None:
    """Every request of the case, its texts held against `expected_texts`; out of memory steps down
    the case's `candidates`."""
    case, result = context.case, context.result
    expected = read_texts(case.options.get("expected_texts"))
    maintenance = Maintenance(**case.options.get("maintenance", {}))
    serving = _loaded(context, maintenance)
    by_id = {spec.id: spec for spec in case.requests}
    began, energy = time.perf_counter(), context.device.energy_j()
    for index, served in enumerate(_served(context, serving)):
        spec = by_id[served.request.id]
        stepped = context.case.asr != case.asr
        write_trial(
            context,
            spec,
            served,
            is_first_request=index == 0 and case.warmup == 0,
            output_matches_reference=parity(
                expected, serving.current, spec, served, stepped=stepped
            ),
        )
    seconds, n_requests = time.perf_counter() - began, len(case.requests)
    result |= _energy_columns(energy, context.device.energy_j(), n_requests) | {
        "throughput_rps": n_requests / seconds,
        "n_trials": n_requests,
        "cache_clears": maintenance.cache_clears,
        "model_reloads": maintenance.reloads,
        "maintenance_s": maintenance.seconds,
    }
    _finish(context, serving)


def _loaded(context: CaseContext, maintenance: Maintenance) -> Serves:
    """What serves the case's requests, loaded and warm: its strategy, or a chain of them."""
    if context.case.candidates:
        chain = fallback.chain_of(context, maintenance)
        chain.open()
        return chain
    strategy = common.strategy_of(context)
    serving = WithMaintenance(strategy, maintenance) if maintenance.active else strategy
    common.bring_up(context, strategy)
    return serving


def _served(context: CaseContext, serving: Serves) -> Iterable[CompletedRequest]:
    requests = common.requests_of(context)
    if _is_taken_apart(context):
        return [common.measured_request(context, serving.current, requests[0], phases=True)]
    return serving.stream(ArrivalQueue(requests), measure=partial(common.measured, context))


def _is_taken_apart(context: CaseContext) -> bool:
    """One request whose phases are measured apart; of several that is another one, afterwards."""
    return context.case.phases and len(context.case.requests) == 1


def _finish(context: CaseContext, serving: Serves) -> None:
    """What is recorded of a case when its requests are served."""
    case, strategy = context.case, serving.current
    steps = serving.steps if isinstance(serving, FallbackChain) else []
    context.result["worker_restarts"] = sum(model.restarts for model in strategy.models)
    if case.candidates and case.asr is not None:
        context.result["served_by_model"] = case.asr.model
        context.result["fallbacks"] = len(steps)
    if case.phases and not _is_taken_apart(context):
        longest = max(case.requests, key=lambda spec: spec.audio_s)
        request = common.request_of(context, longest)
        common.measured_request(context, strategy, request, phases=True)
    if not steps:  # a ledger is one pair's, and the peaks would be another's
        write_ledgers(context, strategy)
    context.enter("close")
    serving.close()


def _energy_columns(before: Reading, after: Reading, requests: int) -> dict[str, Any]:
    """Joules of the whole device for each request, idle power and neighbours included."""
    if before.value is None or after.value is None:
        return {"request_energy_j": None, "energy_reason": before.reason or after.reason}
    return {"request_energy_j": (after.value - before.value) / requests, "energy_reason": ""}


# ---------------------------------------------------------------------------------------- parity


def read_texts(path: str | None) -> dict[str, list[int]]:
    """Token ids of each model alone, as `workloads.reference` wrote them; empty without a path."""
    return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if path else {}


def parity(
    expected: Mapping[str, list[int]],
    strategy: Strategy,
    spec: RequestSpec,
    served: CompletedRequest,
    *,
    stepped: bool,
) -> bool | None:
    """Whether both models said what they say alone, token by token. None without a reference:
    for a transcript also where the recogniser works on another device, whose rounding is its own,
    or is `stepped`: a smaller one than the pair's."""
    if not expected:
        return None
    if list(served.answer.tokens) != expected[f"answer/{spec.id}"]:
        return False
    if not catalog.strategy(strategy.name).has_asr:
        return list(served.transcript.tokens) == expected[f"llm/{spec.clip_id}"]
    if stepped or strategy.asr.device.kind != strategy.device.kind:
        return None
    return list(served.transcript.tokens) == expected[f"asr/{spec.clip_id}"]
