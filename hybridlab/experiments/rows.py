"""What a case writes: its trials, spans, samples and ledger, and its columns of `cases`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hybridlab.device import Device
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.meter import Meter, thin
from hybridlab.records import TableWriter
from hybridlab.strategies import Served, Strategy
from hybridlab.tenants.base import Span


@dataclass
class Context:
    """What the work of a case has at hand."""

    case: Case  # with the Whisper that serves now, where the ladder stepped down
    device: Device
    meter: Meter
    writer: TableWriter
    started_s: float
    phase: str = "load"
    result: dict[str, Any] = field(default_factory=dict)
    #: What lives as long as the case, its workers for one.
    stack: ExitStack = field(default_factory=ExitStack)
    log: Path | None = None

    def since_start(self, stamp_s: float) -> float:
        return stamp_s - self.started_s

    @property
    def steady_bytes(self) -> int:
        return self.meter.steady_bytes or 0

    def follow(self, strategy: Strategy) -> None:
        """Let a failure say in which phase of which tenant it came: the tenant that failed is still
        in its phase when another one, at work at the same time, has left its own."""
        current: dict[str, str] = {}

        def enter(tenant: str, phase: str) -> None:
            current.pop(tenant, None)
            if phase:
                current[tenant] = phase
            self.phase = next(iter(current.values()), "between phases")

        for tenant in strategy.tenants:
            tenant.on_phase = partial(enter, tenant.name)


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
    due_s: float | None = None,
) -> None:
    """A row of `trials`, and the spans of its request. `due_s`: when the request arrived, where it
    may have had to wait until it was served."""
    request_id = spec.id + suffix
    write_spans(context, request_id, list(served.spans))
    context.writer.append(
        "trials",
        {
            **trial_identity(context, spec),
            "request_id": request_id,
            "latency_s": served.end_s - (served.start_s if due_s is None else due_s),
            "wait_s": None if due_s is None else served.start_s - due_s,
            "first": first,
            "transcript": served.transcript.text if _has_text(context) else None,
            "answer": served.answer.text if context.case.analyst.has_text else None,
            "parity": parity,
            "cycle": cycle,
            **_served_by(context),
        },
    )


def _served_by(context: Context) -> dict[str, str]:
    """Which Whisper it was, in a case that may step down to a smaller one."""
    whisper = context.case.transcriber
    return {"served_by": whisper.model} if context.case.rungs and whisper is not None else {}


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
                "bytes": span.n_bytes,
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
