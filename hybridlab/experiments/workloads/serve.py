"""Work of a case that serves a stream of requests under one strategy: one after the other with the
parity gate, or as they arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hybridlab import catalog
from hybridlab.devices import Reading
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_trial
from hybridlab.experiments.memory_breakdown import write_ledgers
from hybridlab.experiments.workloads import common
from hybridlab.models import GenerationResult
from hybridlab.strategies import ArrivalQueue, CompletedRequest, Strategy

#: Between the warm-up and the first arrival that may be due.
LEAD_S = 0.05


def run(context: CaseContext) -> None:
    """Every request of the case, its texts held against `expected_texts`."""
    case, result = context.case, context.result
    expected = read_texts(case.options.get("expected_texts"))
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    by_id = {spec.id: spec for spec in case.requests}
    began, energy = time.perf_counter(), context.device.energy_j()
    for index, served in enumerate(_served(context, strategy)):
        spec = by_id[served.request.id]
        write_trial(
            context,
            spec,
            served,
            is_first_request=index == 0 and case.warmup == 0,
            output_matches_reference=parity(expected, strategy, spec, served),
        )
    seconds, n_requests = time.perf_counter() - began, len(case.requests)
    result |= _energy_columns(energy, context.device.energy_j(), n_requests) | {
        "throughput_rps": n_requests / seconds,
        "n_trials": n_requests,
        "worker_restarts": sum(model.restarts for model in strategy.models),
    }
    if case.phases and not _is_taken_apart(case):
        longest = max(case.requests, key=lambda spec: spec.audio_s)
        request = common.request_of(context, longest)
        common.measured_request(context, strategy, request, phases=True)
    common.rest(context, strategy)
    write_ledgers(context, strategy)
    context.enter("close")
    strategy.close()


def run_arrivals(context: CaseContext) -> None:
    """Poisson arrivals at `rate_rps`, seeded, so that every arm meets the same ones. The latency of
    a request begins when it is due and not when its service begins."""
    case = context.case
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    rng = np.random.default_rng(int(case.options["seed"]))
    gaps = rng.exponential(1 / float(case.options["rate_rps"]), len(case.requests))
    with common.measured(context):
        due = (time.perf_counter() + LEAD_S + np.cumsum(gaps)).tolist()
        asked = common.requests_of(context)
        by_id = {spec.id: (spec, due_s) for spec, due_s in zip(case.requests, due, strict=True)}
        ends = []
        for served in strategy.stream(ArrivalQueue(asked, due)):
            spec, due_s = by_id[served.request.id]
            write_trial(context, spec, served, is_first_request=False, due_s=due_s)
            ends.append(served.end_s)
    context.result |= {
        "arrival_rate_rps": rate_rps(due),
        "throughput_rps": rate_rps(ends),
        "n_trials": len(due),
    }
    common.close(context, strategy)


def rate_rps(times_s: Sequence[float]) -> float | None:
    """Events per second as they came; None where all came at once."""
    lasted = max(times_s) - min(times_s)
    return (len(times_s) - 1) / lasted if lasted > 0 else None


def _served(context: CaseContext, strategy: Strategy) -> Iterable[CompletedRequest]:
    requests = common.requests_of(context)
    if _is_taken_apart(context.case):
        return [common.measured_request(context, strategy, requests[0], phases=True)]
    return strategy.stream(ArrivalQueue(requests), measure=partial(common.measured, context))


def _is_taken_apart(case: Case) -> bool:
    """One request whose phases are measured apart; of several that is another one, afterwards."""
    return case.phases and len(case.requests) == 1


def _energy_columns(before: Reading, after: Reading, requests: int) -> dict[str, Any]:
    """Joules of the whole device for each request, idle power and neighbours included."""
    if before.value is None or after.value is None:
        return {"request_energy_j": None, "energy_reason": before.reason or after.reason}
    return {"request_energy_j": (after.value - before.value) / requests, "energy_reason": ""}


# ---------------------------------------------------------------------------------------- parity


def read_texts(path: str | None) -> dict[str, dict[str, Any]]:
    """Token ids of each model alone and how each text ended, as `workloads.reference` wrote them;
    empty without a path."""
    return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if path else {}


def parity(
    expected: Mapping[str, Mapping[str, Any]],
    strategy: Strategy,
    spec: RequestSpec,
    served: CompletedRequest,
) -> bool | None:
    """Whether both models said what they say alone, token by token. None without a reference, and
    where a text was cut short, now or then: for a transcript also where the recogniser works on
    another device, whose rounding is its own."""
    if not expected:
        return None
    answers = _same(expected[f"answer/{spec.id}"], served.answer)
    if not catalog.strategy(strategy.name).has_asr:
        transcripts = _same(expected[f"llm/{spec.clip_id}"], served.transcript)
    elif strategy.asr.device.name != strategy.device.name:
        transcripts = None
    else:
        transcripts = _same(expected[f"asr/{spec.clip_id}"], served.transcript)
    if False in (answers, transcripts):
        return False
    return None if None in (answers, transcripts) else True


def _same(alone: Mapping[str, Any], said: GenerationResult) -> bool | None:
    if alone["finish"] != "stop" or said.finish_reason != "stop":
        return None
    return bool(list(said.tokens) == alone["tokens"])
