"""What a case writes: its trials, spans, samples and ledger, and its columns of `cases`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hybridlab.audio import Samples
from hybridlab.devices import Device
from hybridlab.devices.base import SLACK, UNTRACKED
from hybridlab.experiments.case import Case, RequestSpec
from hybridlab.experiments.live_feed import LiveFeed
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    ModelSpec,
    PhaseSpan,
)
from hybridlab.profiling.memory_profiler import MemoryProfiler, Rest, thin
from hybridlab.results.writer import TableWriter
from hybridlab.strategies import CompletedRequest

#: Phases of a model that is asked over HTTP, as columns of `trials`.
HTTP_COLUMNS = {
    "http": "http_overhead_s",
    "gateway": "gateway_s",
    "wait": "queue_wait_s",
    "work": "server_work_s",
}


@dataclass
class CaseContext:
    """What the work of a case has at hand."""

    case: Case  # with the Whisper that serves now, where the fallback chain stepped down
    device: Device
    meter: MemoryProfiler
    writer: TableWriter
    started_s: float
    phase: str = "load"
    stage: str = "load"
    result: dict[str, Any] = field(default_factory=dict)
    #: What lives as long as the case, its workers for one.
    stack: ExitStack = field(default_factory=ExitStack)
    log: Path | None = None
    #: Audio of the requests by clip.
    clips: dict[str, Samples] = field(default_factory=dict)
    #: Weights and buffers by owner when all was loaded, and when all was warm.
    loaded_owners: Mapping[str, int] = field(default_factory=dict)
    idle_owners: Mapping[str, int] = field(default_factory=dict)
    broadcast: LiveFeed = field(default_factory=LiveFeed)
    #: All that were followed so far.
    models: list[Model] = field(default_factory=list)
    _held: Callable[[], Mapping[str, int]] = dict

    def since_start(self, stamp_s: float) -> float:
        return stamp_s - self.started_s

    @property
    def loaded(self) -> Rest:
        """As all was when it was loaded; nothing before that."""
        return self.meter.loaded or Rest()

    @property
    def llm_logits_finite(self) -> bool | None:
        """What the case's language model told of its first logits; None before that."""
        told = (model.logits_finite for model in self.models)
        return next((finite for finite in told if finite is not None), None)

    def has_text(self, spec: ModelSpec) -> bool:
        """Whether the words of this model of the case mean anything."""
        return spec.has_text and (spec != self.case.llm or self.llm_logits_finite is not False)

    def enter(self, stage: str) -> None:
        """Begin a stage of the case ('load', 'request' …): the phase of a failure,
        until a model is in one of its own."""
        self.stage = self.phase = stage
        if self.broadcast.watched:
            owners = self._owners()
            self.broadcast.tell(
                stage=stage,
                phase=stage,
                owners=owners,
                unnamed_bytes=max(0, self.loaded.used_bytes - sum(owners.values())),
                workers={
                    str(member.pid): member.shared_bytes for member in self.device.tracked_processes
                },
            )

    def follow(
        self,
        models: Sequence[Model],
        held: Callable[[], Mapping[str, int]],
        *,
        moving: bool = False,
    ) -> None:
        """Let a failure say in which phase of which model it came: the model that failed is still
        in its phase when another one, at work at the same time, has left its own.

        `held` says what they hold of the device, for a watcher; where weights move in the midst of
        a request (`moving`), it is asked at each phase.
        """
        self._held = held
        self.models += models
        current: dict[str, str] = {}

        def enter(model: str, phase: str) -> None:
            current.pop(model, None)
            if phase:
                current[model] = phase
            between = "between phases" if self.stage == "request" else self.stage
            self.phase = next(iter(current.values()), between)
            if self.broadcast.watched and current:
                self._tell_phases(list(current.values()), moving=moving or self.stage == "load")

        for model in models:
            model.on_phase = partial(enter, model.name)

    def _tell_phases(self, phases: Sequence[str], *, moving: bool) -> None:
        # the head is a phase of memory alone, in the midst of every token of the decode
        phase = " + ".join(phase.replace(" head", " decode") for phase in phases)
        if phase != self.broadcast.told.phase:
            owners = self._owners() if moving else self.broadcast.told.owners
            self.broadcast.tell(phase=phase, owners=owners)

    def _owners(self) -> dict[str, int]:
        """Bytes of the case by whose they are: the process itself, then each model."""
        owners = {"base": self.meter.process_baseline_bytes}
        for owner, n_bytes in self._held().items():
            model = owner.partition(" ")[0]
            owners[model] = owners.get(model, 0) + n_bytes
        return owners


def trial_identity(context: CaseContext, spec: RequestSpec) -> dict[str, Any]:
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
        "question_type": spec.question_type,
    }


def write_trial(
    context: CaseContext,
    spec: RequestSpec,
    served: CompletedRequest,
    *,
    is_first_request: bool,
    output_matches_reference: bool | None = None,
    suffix: str = "",
    cycle: int | None = None,
    due_s: float | None = None,
) -> None:
    """A row of `trials`, and the spans of its request. `due_s`: when the request arrived, where it
    may have had to wait until it was served."""
    case, request_id = context.case, spec.id + suffix
    latency_s = served.end_s - (served.start_s if due_s is None else due_s)
    write_spans(context, request_id, list(served.spans))
    context.writer.append(
        "trials",
        {
            **trial_identity(context, spec),
            "request_id": request_id,
            "latency_s": latency_s,
            "rtfx": spec.audio_s / latency_s,
            **_token_columns(context, served),
            "queue_time_s": None if due_s is None else served.start_s - due_s,
            "is_first_request": is_first_request,
            **text_columns(
                served.transcript if context.has_text(case.asr or case.llm) else None,
                served.answer if context.has_text(case.llm) else None,
            ),
            "output_matches_reference": output_matches_reference,
            "cycle": cycle,
            # in a case that may step down to a smaller recogniser: which one it was
            **({"served_by_model": case.asr.model} if case.candidates and case.asr else {}),
            **_over_http(served),
        },
    )


def text_columns(
    transcript: GenerationResult | None, answer: GenerationResult | None
) -> dict[str, Any]:
    """What was said and how it ended; None for a text that is not there, or that means nothing."""
    windows = transcript.windows if transcript else ()
    return {
        "transcript": transcript.text if transcript else None,
        "transcript_finish": transcript.finish_reason if transcript else None,
        "transcript_windows": len(windows) or None,
        "transcript_windows_cut": sum(ended != "stop" for ended in windows) if windows else None,
        "answer": answer.text if answer else None,
        "answer_finish": answer.finish_reason if answer else None,
    }


def _token_columns(context: CaseContext, served: CompletedRequest) -> dict[str, Any]:
    """Time to the answer's first token, which its prefill ends with, and pace of the later ones;
    those of a batch step together, until its longest answer ends. Empty where no spans tell the
    answer's own: over HTTP, after a shared prefix."""
    n_tokens = len(served.answer.tokens)
    found: dict[str, Any] = {"output_tokens": n_tokens}
    spans = served.batch_spans or served.spans
    spans = tuple(span for span in spans if span.role == AudioLanguageModel.name)
    if [span.phase for span in spans[-2:]] != ["prefill", "decode"]:
        return found
    prefill, decode = spans[-2:]
    found["ttft_s"] = prefill.end_s - served.start_s
    steps, decode_s = (served.longest_answer or n_tokens) - 1, decode.end_s - decode.start_s
    if n_tokens > 1 and decode_s > 0:
        found |= {"itl_s": decode_s / steps, "tokens_per_s": steps / decode_s}
    return found


def _over_http(served: CompletedRequest) -> dict[str, float]:
    """Where this request's seconds went, for the model that was last: what HTTP added (the
    caller's, less all that a gateway and the server report as their own), what a gateway added, the
    wait in the server's queue, and its work."""
    last = max(served.spans, key=lambda span: span.end_s, default=None)
    seconds: dict[str, float] = {}
    for span in served.spans:
        if last is not None and span.role == last.role:
            seconds[span.phase] = seconds.get(span.phase, 0.0) + span.end_s - span.start_s
    if "http" not in seconds:
        return {}
    return {column: seconds[phase] for phase, column in HTTP_COLUMNS.items() if phase in seconds}


def write_spans(context: CaseContext, request_id: str | None, spans: list[PhaseSpan]) -> None:
    for span in spans:
        context.writer.append(
            "spans",
            {
                "request_id": request_id,
                "role": span.role,
                "phase": span.phase,
                "start_s": context.since_start(span.start_s),
                "end_s": context.since_start(span.end_s),
                "bytes": span.n_bytes,
            },
        )


def write_samples(context: CaseContext) -> None:
    for sample in thin(context.meter.sampler.samples):
        context.writer.append(
            "samples",
            {
                "t_s": context.since_start(sample.t_s),
                "source": context.device.allocator,
                "bytes": sample.n_bytes,
            },
        )


def case_columns(context: CaseContext) -> dict[str, Any]:
    """What the meter read at each moment, what was outside the allocator and free at the moment
    when least was, and how the case was run."""
    meter, device = context.meter, context.device
    known = [peak for stage in ("load", "request") if (peak := meter.peak_bytes(stage)) is not None]
    return {
        "process_baseline_bytes": meter.process_baseline_bytes,
        "load_peak_bytes": meter.peak_bytes("load"),
        "loaded_bytes": meter.loaded.used_bytes if meter.loaded else None,
        "idle_bytes": meter.idle.used_bytes if meter.idle else None,
        "request_peak_bytes": meter.peak_bytes("request"),
        "load_peak_reserved_bytes": meter.peak_reserved_bytes("load"),
        "idle_reserved_bytes": meter.idle.reserved_bytes if meter.idle else None,
        "request_peak_reserved_bytes": meter.peak_reserved_bytes("request"),
        "peak_bytes": max(known) if known else None,
        "capacity_bytes": device.capacity_bytes(),
        **_least_free(context),
        "attention_kernel": next(
            (model.attention_kernel for model in context.models if model.attention_kernel), None
        ),
        "llm_logits_finite": context.llm_logits_finite,
        "compute_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "duration_s": context.since_start(time.perf_counter()),
        "sampler_interval_s": meter.sampler.achieved_interval_s(),
        "sampler_longest_gap_s": meter.sampler.longest_gap_s(),
    }


def _least_free(context: CaseContext) -> dict[str, Any]:
    """The margin: the ledger's own `free` at the peak of the region that left least."""
    device, capacity_bytes = context.device, context.device.capacity_bytes()
    found: dict[str, Any] = {"external_bytes": None, "external_reason": "", "margin_bytes": None}
    found["untracked_children_bytes"] = None
    for region in context.meter.regions:
        account = region.peak_account
        if UNTRACKED in account.external:
            most = max(found["untracked_children_bytes"] or 0, account.external[UNTRACKED])
            found["untracked_children_bytes"] = most
        outside = [n_bytes for owner, n_bytes in account.external.items() if owner != SLACK]
        if not outside:  # no reading: a margin without it would be too large
            return {**found, "external_reason": device.external_bytes().reason}
        free = account.free_bytes(capacity_bytes=capacity_bytes, used_bytes=region.peak_bytes)
        if found["margin_bytes"] is None or free < found["margin_bytes"]:
            found |= {"external_bytes": sum(outside), "margin_bytes": free}
    return found
