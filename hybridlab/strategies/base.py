"""The interface of every strategy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from hybridlab.catalog import LoadOrder
from hybridlab.errors import ParameterError
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    PhaseSpan,
    SpeechRecognizer,
)
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request

Around = Callable[[str], AbstractContextManager[Any]]
Measure = Callable[[], AbstractContextManager[Any]]


class Strategy(ABC):
    """Serves requests one at a time with a recogniser and an LLM.

    `open` loads what stays resident, `close` gives everything back.
    """

    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]

    #: Whether both tenants work on a request at the same time.
    at_once: ClassVar[bool] = False
    #: Variants whose `stream` works on several requests at once, which `serve` cannot show.
    streaming: ClassVar[tuple[str, ...]] = ()
    #: Who is loaded first; changed before `open`.
    load_order: LoadOrder = "llm-first"
    #: Where weights cross a link: its own speed, measured in `open`.
    link_bytes_per_s: float | None = None

    def __init__(
        self, asr: SpeechRecognizer | None, llm: AudioLanguageModel, *, variant: str
    ) -> None:
        self._asr = asr
        self.llm = llm
        self.variant = variant
        self.device = llm.device
        self._around: Around = nullcontext

    @property
    def asr(self) -> SpeechRecognizer:
        if self._asr is None:
            raise ParameterError(f"strategy {self.name} needs a transcriber beside the analyst")
        return self._asr

    @property
    def tenants(self) -> list[Model]:
        """Voxtral first."""
        return [self.llm] if self._asr is None else [self.llm, self._asr]

    @property
    def resident(self) -> list[Model]:
        """The tenants that stay loaded between requests."""
        return self.tenants

    def in_load_order(self, tenants: list[Model]) -> list[Model]:
        return tenants if self.load_order == "llm-first" else tenants[::-1]

    @property
    def current(self) -> Strategy:
        """The strategy that serves now: of a wrapper the one inside."""
        return self

    def owners(self) -> dict[str, int]:
        """Bytes of the device that the strategy itself holds beside the tenants' weights."""
        return {}

    def held(self, tenants: Sequence[Model]) -> dict[str, int]:
        """Weights of those of the tenants that are loaded on the device, their processors where
        those share it, and what the strategy holds itself."""
        there = [t for t in tenants if t.device.kind == self.device.kind]
        loaded = [tenant for tenant in there if tenant.loaded]
        here = {t.name: t.weights_bytes() for t in loaded}
        # no bytes: they are away, and a row would compare nothing with the planner's word
        weights = {f"{name} weights": n or 0 for name, n in here.items() if n != 0}
        processors = {f"{t.name} processor": t.processor_bytes for t in loaded}
        known = {owner: n for owner, n in processors.items() if n is not None}
        return weights | known | self.owners()

    def host_copy_bytes(self) -> int:
        """Bytes of host memory in which weights wait for their turn."""
        return 0

    def open(self) -> None:
        for tenant in self.in_load_order(self.resident):
            with stage(tenant, "load"):
                tenant.load()

    def close(self) -> None:
        for tenant in self.tenants:
            if tenant.loaded:
                tenant.unload()
        self.device.release_caches()

    def serve(self, request: Request, *, around: Around = nullcontext) -> CompletedRequest:
        """Serve one request; the device is idle before and after. `around` makes a context for
        each tenant's share of it, by the tenant's name."""
        self._around = around
        self.device.synchronize()
        start = time.perf_counter()
        transcript, answer = self._serve(request)
        self.device.synchronize()
        end = time.perf_counter()
        return CompletedRequest(
            request=request,
            transcript=transcript,
            answer=answer,
            start_s=start,
            end_s=end,
            spans=tuple(span for tenant in self.tenants for span in tenant.drain_spans()),
        )

    def stream(
        self, inbox: ArrivalQueue, *, measure: Measure = nullcontext
    ) -> Iterator[CompletedRequest]:
        """Serve what comes in. `measure` is entered around each request or, where the variant
        works on several at once, around all of them together."""
        if self.streams:
            with measure():
                yield from self._overlapped(inbox)
            return
        for request in inbox:
            with measure():
                completed = self.serve(request)
            yield completed

    def _overlapped(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        """What a variant of `streaming` does."""
        raise NotImplementedError

    @abstractmethod
    def _serve(self, request: Request) -> tuple[GenerationResult, GenerationResult]:
        """Transcript and answer of this request."""

    @property
    def streams(self) -> bool:
        """Whether only `stream` shows what this variant is for."""
        return self.variant in self.streaming

    def _transcribe(self, request: Request) -> GenerationResult:
        with self._around(self.asr.name):
            return self.asr.transcribe(
                [request.samples], language=request.language, max_new_tokens=request.max_new_tokens
            )[0]

    def _answer(self, request: Request) -> GenerationResult:
        with self._around(self.llm.name):
            return self.llm.answer(
                [request.samples], [request.question], max_new_tokens=request.max_new_tokens
            )[0]


@contextmanager
def timed(tenant: Model, phase: str, n_bytes: int | None = None) -> Iterator[None]:
    """Record the work inside as a span of this tenant, waiting for the device at its end."""
    start = time.perf_counter()
    yield
    tenant.device.synchronize()
    tenant.spans.append(PhaseSpan(tenant.name, phase, start, time.perf_counter(), n_bytes))


@contextmanager
def stage(tenant: Model, phase: str, n_bytes: int | None = None) -> Iterator[None]:
    """A timed span whose name a failure inside is told by."""
    if tenant.on_phase is not None:
        tenant.on_phase(f"{tenant.name} {phase}")
    with timed(tenant, phase, n_bytes):
        yield
    if tenant.on_phase is not None:
        tenant.on_phase("")
