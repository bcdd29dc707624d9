"""Work of a case in which the parties get in each other's way: each alone, then every two."""

from __future__ import annotations

import itertools
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from hybridlab.analysis.interference import ALONE
from hybridlab.devices import Device
from hybridlab.experiments import serving
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.rows import Context, write_spans
from hybridlab.models import Analyst, Tenant, Transcriber
from hybridlab.models.base import Span
from hybridlab.strategies import Request


class Party(ABC):
    """Somebody who works on the device again and again."""

    name: str

    @abstractmethod
    def work(self, spec: RequestSpec) -> list[Span]:
        """Do one piece of work; what it did when."""


class TenantParty(Party):
    """A tenant with its own share of a request."""

    def __init__(self, tenant: Tenant, requests: dict[str, Request]) -> None:
        self.name, self.tenant, self.requests = tenant.name, tenant, requests

    def work(self, spec: RequestSpec) -> list[Span]:
        request, tenant = self.requests[spec.id], self.tenant
        most = request.max_new_tokens
        if isinstance(tenant, Analyst):
            tenant.answer([request.samples], [request.question], max_new_tokens=most)
        elif isinstance(tenant, Transcriber):
            tenant.transcribe([request.samples], language=request.language, max_new_tokens=most)
        return tenant.drain_spans()


class CopyParty(Party):
    """Weights on their way in: a block as large as Whisper's, copied to the device."""

    name = "copy"

    def __init__(self, device: Device, n_bytes: int) -> None:
        self.device = device
        on_gpu = device.kind == "cuda"
        self.source = torch.ones(n_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self.target = torch.empty_like(self.source, device=device.name)
        self.stream: Any = torch.cuda.Stream(device.name) if on_gpu else None  # type: ignore[no-untyped-call]

    def work(self, spec: RequestSpec) -> list[Span]:
        start = time.perf_counter()
        if self.stream is None:
            with self.device.at_work():
                self.target.copy_(self.source)
        else:
            with torch.cuda.stream(self.stream):
                self.target.copy_(self.source, non_blocking=True)
            self.stream.synchronize()
        return [Span(self.name, "copy-in", start, time.perf_counter())]


def collide(context: Context) -> None:
    """Spans of every party alone and of every two parties at once, labelled in `request_id`."""
    case = context.case
    strategy = serving.strategy_of(context)
    serving.load(context, strategy)
    audio = serving.read_clips(context)
    serving.warm_up(context, strategy, audio)
    asked = {
        spec.id: serving.request_of(context, spec, audio[spec.clip_id]) for spec in case.requests
    }
    parties: list[Party] = [TenantParty(tenant, asked) for tenant in strategy.tenants]
    size = strategy.transcriber.weights_bytes() or strategy.analyst.weights_bytes() or 0
    parties.append(CopyParty(context.device, size))
    repeats = int(case.options["repeats"])
    context.enter("request")
    with context.meter.region("request"):
        for party in parties:
            for spec in case.requests * repeats:
                write_spans(context, f"{ALONE}:{spec.id}", party.work(spec))
        for two in itertools.combinations(parties, 2):
            _together(context, two, repeats)
    context.result["n_trials"] = repeats * len(case.requests)
    strategy.close()


def _together(context: Context, two: tuple[Party, Party], repeats: int) -> None:
    """Both at work until each has done its share; who is done first goes on, so that the other is
    never alone."""
    label = "+".join(party.name for party in two)
    done = [threading.Event(), threading.Event()]

    def work(number: int) -> list[tuple[str, list[Span]]]:
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
