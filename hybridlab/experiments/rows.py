"""What a case writes: its trials, spans, samples and ledger, and its columns of `cases`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from hybridlab import catalog, planner
from hybridlab.device import Device, card_of
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.meter import Meter, thin
from hybridlab.records import TableWriter
from hybridlab.strategies import Served, Strategy
from hybridlab.tenants.base import Span


@dataclass
class Context:
    """What the work of a case has at hand."""

    case: Case
    device: Device
    meter: Meter
    writer: TableWriter
    started_s: float
    phase: str = "load"
    result: dict[str, Any] = field(default_factory=dict)

    def since_start(self, stamp_s: float) -> float:
        return stamp_s - self.started_s


def trial_identity(context: Context, spec: RequestSpec) -> dict[str, Any]:
    case = context.case
    return {
        "strategy": case.strategy,
        "variant": case.variant,
        "round": case.round,
        "request_id": spec.id,
        "clip_id": spec.clip_id,
        "audio_s": spec.audio_s,
        "reference": spec.reference,
        "question": spec.question,
        "expected_answer": spec.expected_answer,
        "kind": spec.kind,
    }


def write_trial(
    context: Context,
    spec: RequestSpec,
    served: Served,
    *,
    first: bool,
    parity: bool | None,
    suffix: str = "",
    cycle: int | None = None,
) -> None:
    request_id = spec.id + suffix
    write_spans(context, request_id, list(served.spans))
    context.writer.append(
        "trials",
        {
            **trial_identity(context, spec),
            "request_id": request_id,
            "latency_s": served.latency_s,
            "first": first,
            "transcript": served.transcript.text if _has_text(context) else None,
            "answer": served.answer.text if context.case.analyst.has_text else None,
            "parity": parity,
            "cycle": cycle,
        },
    )


def _has_text(context: Context) -> bool:
    tenant = context.case.transcriber or context.case.analyst
    return tenant.has_text


def write_spans(context: Context, request_id: str | None, spans: list[Span]) -> None:
    for span in spans:
        context.writer.append(
            "spans",
            {
                "request_id": request_id,
                "tenant": span.tenant,
                "phase": span.phase,
                "start_s": context.since_start(span.start_s),
                "end_s": context.since_start(span.end_s),
            },
        )


def write_samples(context: Context) -> None:
    for sample in thin(context.meter.sampler.samples):
        context.writer.append(
            "samples",
            {
                "t_s": context.since_start(sample.t_s),
                "source": context.device.allocator,
                "bytes": sample.n_bytes,
            },
        )


def memory_columns(context: Context) -> dict[str, Any]:
    meter, device = context.meter, context.device
    peaks = [meter.peak_bytes("load"), meter.peak_bytes("request")]
    known = [peak for peak in peaks if peak is not None]
    outside = device.outside_bytes()
    margin = None
    if known and outside.value is not None:
        margin = int(device.capacity_bytes() - outside.value - max(known))
    return {
        "base_bytes": meter.base_bytes,
        "load_peak_bytes": peaks[0],
        "steady_bytes": meter.steady_bytes,
        "request_peak_bytes": peaks[1],
        "capacity_bytes": device.capacity_bytes(),
        "outside_bytes": outside.value,
        "outside_reason": outside.reason,
        "margin_bytes": margin,
        "duration_s": context.since_start(time.perf_counter()),
        "sampler_interval_s": meter.sampler.achieved_interval_s(),
        "sampler_longest_gap_s": meter.sampler.longest_gap_s(),
    }


def write_ledgers(context: Context, strategy: Strategy) -> None:
    """Owners of the allocator's bytes at three moments; each moment's rows sum to its reading."""
    meter, device = context.meter, context.device
    weights = {f"{t.name} weights": t.weights_bytes() or 0 for t in strategy.tenants if t.loaded}
    base = {"base": meter.base_bytes}
    steady = meter.steady_bytes or 0
    request = (meter.peak_bytes("request") or steady) - steady
    unexplained = steady - meter.base_bytes - sum(weights.values())
    moments = {
        "load_peak": {
            **base,
            **weights,
            "unexplained": (meter.peak_bytes("load") or 0)
            - meter.base_bytes
            - sum(weights.values()),
        },
        "steady": {**base, **weights, "unexplained": unexplained},
        "request_peak": {**base, **weights, "unexplained": unexplained, "request": request},
    }
    predicted = _predicted(context, device)
    for moment, owners in moments.items():
        for owner, n_bytes in owners.items():
            row = {"moment": moment, "owner": owner, "bytes": n_bytes}
            context.writer.append("ledgers", {**row, "predicted_bytes": predicted.get(owner)})
    context.result["predicted_bytes"] = meter.base_bytes + sum(
        value for owner, value in predicted.items()
    )


def _predicted(context: Context, device: Device) -> dict[str, int]:
    """The planner's word on each owner, for the longest clip of this case."""
    case = context.case
    card = card_of(device) or catalog.HOST
    request = planner.Request(
        audio_s=max(spec.audio_s for spec in case.requests), new_tokens=case.max_new_tokens
    )
    voxtral = catalog.voxtral(case.analyst.model)
    predicted = {
        "voxtral weights": planner.voxtral_weights_bytes(voxtral, dtype=case.analyst.dtype),
        "request": planner.voxtral_request_bytes(
            voxtral, request, dtype=case.analyst.dtype, card=card
        ),
    }
    if case.transcriber is None:
        return predicted
    whisper = catalog.whisper(case.transcriber.model)
    options = {"backend": case.transcriber.backend, "dtype": case.transcriber.dtype}
    predicted["whisper weights"] = planner.whisper_weights_bytes(whisper, **options)
    # all windows of a long clip are one batch of Whisper
    batch = planner.Request(batch=request.windows, new_tokens=case.max_new_tokens)
    transient = planner.whisper_request_bytes(whisper, batch, card=card, **options)
    predicted["request"] = max(predicted["request"], transient)
    return predicted
