"""Work of a case in which the parties get in each other's way: each alone, then every two."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from hybridlab.analysis.phase_slowdown import ALONE
from hybridlab.devices import Device
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_spans
from hybridlab.experiments.workloads import common
from hybridlab.models import AudioLanguageModel, Model, SpeechRecognizer
from hybridlab.models.base import PhaseSpan
from hybridlab.strategies import Request


class ModelWorkload:
    """A model with its own share of a request."""

    def __init__(self, model: Model, requests: dict[str, Request]) -> None:
        self.name, self.model, self.requests = model.name, model, requests

    def work(self, spec: RequestSpec) -> list[PhaseSpan]:
        """Do one piece of work; what it did when."""
        request, model = self.requests[spec.id], self.model
        most = request.max_new_tokens
        if isinstance(model, AudioLanguageModel):
            model.answer([request.samples], [request.question], max_new_tokens=most)
        elif isinstance(model, SpeechRecognizer):
            model.transcribe([request.samples], language=request.language, max_new_tokens=most)
        return model.drain_spans()


class CopyWorkload:
    """Weights on their way in: a block as large as Whisper's, copied to the device."""

    name = "copy"

    def __init__(self, device: Device, n_bytes: int) -> None:
        self.device = device
        on_gpu = not device.is_host
        self.source = torch.ones(n_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self.target = torch.empty_like(self.source, device=device.torch_name)
        self.stream: Any = torch.cuda.Stream(device.torch_name) if on_gpu else None  # type: ignore[no-untyped-call]

    def work(self, spec: RequestSpec) -> list[PhaseSpan]:
        start = time.perf_counter()
        if self.stream is None:
            with self.device.compute_slot():
                self.target.copy_(self.source)
        else:
            with torch.cuda.stream(self.stream):
                self.target.copy_(self.source, non_blocking=True)
            self.stream.synchronize()
        return [PhaseSpan(self.name, "copy-in", start, time.perf_counter())]


Workload = ModelWorkload | CopyWorkload


def run(context: CaseContext) -> None:
    """Spans of every party alone and of every two parties at once, labelled in `request_id`."""
    case = context.case
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    asked = {spec.id: common.request_of(context, spec) for spec in case.requests}
    parties: list[Workload] = [ModelWorkload(model, asked) for model in strategy.models]
    size = strategy.asr.weights_bytes() or strategy.llm.weights_bytes() or 0
    parties.append(CopyWorkload(context.device, size))
    repeats = int(case.options["repeats"])
    context.enter("request")
    with context.meter.region("request"):
        context.device.concurrent_models = 1  # the strategy's models have half the cores each
        for party in parties:
            for spec in case.requests * repeats:
                write_spans(context, f"{ALONE}:{spec.id}", party.work(spec))
        context.device.concurrent_models = 2
        for two in itertools.combinations(parties, 2):
            _together(context, two, repeats)
    context.result["n_trials"] = repeats * len(case.requests)
    strategy.close()


def _together(context: CaseContext, two: tuple[Workload, Workload], repeats: int) -> None:
    """Both at work until each has done its share; who is done first goes on, so that the other is
    never alone."""
    label = "+".join(party.name for party in two)
    done = [threading.Event(), threading.Event()]

    def work(number: int) -> list[tuple[str, list[PhaseSpan]]]:
        spans = []
        specs = itertools.cycle(context.case.requests)
        try:
            for count in itertools.count(1):
                spec = next(specs)
                spans.append((spec.id, two[number].work(spec)))
                if count >= repeats * len(context.case.requests):
                    done[number].set()
                    if done[1 - number].is_set():
                        return spans
        finally:  # a fault must not keep the other at work
            done[number].set()
        return spans

    with ThreadPoolExecutor(max_workers=2) as pool:
        for found in [pool.submit(work, 0), pool.submit(work, 1)]:
            for spec_id, spans in found.result():
                write_spans(context, f"{label}:{spec_id}", spans)
