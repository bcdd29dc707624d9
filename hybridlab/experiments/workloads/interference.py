"""Work of a case in which the parties get in each other's way: each alone, then every two."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from hybridlab.devices import Device
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_spans
from hybridlab.experiments.workloads import common
from hybridlab.models.base import PhaseSpan
from hybridlab.models.transcription import TranscribeOptions

#: A party does one piece of work, and says what it did when.
Party = Callable[[RequestSpec], list[PhaseSpan]]


def run(context: CaseContext) -> None:
    """Spans of every party alone and of every two parties at once, labelled in `request_id`: each
    model with its share of a request, and a thread that copies a block as large as Whisper."""
    from hybridlab.analysis.phase_slowdown import ALONE  # with pandas, which no other case needs

    case = context.case
    strategy = common.strategy_of(context)
    common.bring_up(context, strategy)
    asr, llm, most = strategy.asr, strategy.llm, case.answer_tokens

    def answer(spec: RequestSpec) -> list[PhaseSpan]:
        llm.answer([context.clips[spec.clip_id]], [spec.question], max_new_tokens=most)
        return llm.drain_spans()

    def transcribe(spec: RequestSpec) -> list[PhaseSpan]:
        samples = [context.clips[spec.clip_id]]
        options = TranscribeOptions(language=case.language, max_new_tokens=case.asr_tokens)
        asr.transcribe(samples, options)
        return asr.drain_spans()

    copy = _copying(context.device, asr.weights_bytes() or llm.weights_bytes() or 0)
    parties: dict[str, Party] = {llm.name: answer, asr.name: transcribe, "copy": copy}
    repeats = int(case.options["repeats"])
    context.enter("request")
    with context.meter.region("request"):
        context.device.concurrent_models = 1  # the strategy's models have half the cores each
        for party in parties.values():
            for spec in case.requests * repeats:
                write_spans(context, f"{ALONE}:{spec.id}", party(spec))
        context.device.concurrent_models = 2
        for one, other in itertools.combinations(parties, 2):
            two = (parties[one], parties[other])
            for spec_id, spans in _together(case.requests, two, repeats):
                write_spans(context, f"{one}+{other}:{spec_id}", spans)
    context.result["n_trials"] = repeats * len(case.requests)
    common.close(context, strategy)


def _copying(device: Device, n_bytes: int) -> Party:
    """Weights on their way in."""
    on_gpu = not device.is_host
    source = torch.ones(n_bytes, dtype=torch.uint8, pin_memory=on_gpu)
    target = torch.empty_like(source, device=device.torch_name)
    stream: Any = torch.cuda.Stream(device.torch_name) if on_gpu else None  # type: ignore[no-untyped-call]

    def copy(_: RequestSpec) -> list[PhaseSpan]:
        start = time.perf_counter()
        if stream is None:
            with device.compute_slot():
                target.copy_(source)
        else:
            with torch.cuda.stream(stream):
                target.copy_(source, non_blocking=True)
            stream.synchronize()
        return [PhaseSpan("copy", "copy-in", start, time.perf_counter())]

    return copy


def _together(
    requests: tuple[RequestSpec, ...], two: tuple[Party, Party], repeats: int
) -> list[tuple[str, list[PhaseSpan]]]:
    """What both did until each had done its share; who is done first goes on, so that the other is
    never alone."""
    done = [threading.Event(), threading.Event()]

    def work(number: int) -> list[tuple[str, list[PhaseSpan]]]:
        spans = []
        try:
            for count, spec in enumerate(itertools.cycle(requests), start=1):
                spans.append((spec.id, two[number](spec)))
                if count >= repeats * len(requests):
                    done[number].set()
                    if done[1 - number].is_set():
                        break
        finally:  # a fault must not keep the other at work
            done[number].set()
        return spans

    with ThreadPoolExecutor(max_workers=2) as pool:
        both = [pool.submit(work, 0), pool.submit(work, 1)]
        return [found for one in both for found in one.result()]
