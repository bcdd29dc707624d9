"""The interface of every strategy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from hybridlab import catalog
from hybridlab.catalog import LoadOrder
from hybridlab.errors import ParameterError
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    PhaseSpan,
    SpeechRecognizer,
)
from hybridlab.profiling.attribution import Around
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request

#: Transcript and answer of one request.
Texts = tuple[GenerationResult, GenerationResult]
Measure = Callable[[], AbstractContextManager[Any]]


class Strategy(ABC):
    """Serves requests one at a time with a recogniser and an LLM.

    `open` loads what stays resident, `close` gives everything back.
    """

    name: ClassVar[str]

    #: Which model is loaded first; changed before `open`.
    load_order: LoadOrder = "llm-first"
    #: Where weights cross a link: its own speed, measured in `open`.
    link_bytes_per_s: float | None = None

    def __init__(
        self, asr: SpeechRecognizer | None, llm: AudioLanguageModel, *, variant: str
    ) -> None:
        self._asr = asr
        self.llm = llm
        self.variant = variant
        self.facts = catalog.variant(self.name, variant)
        self.device = llm.device
        self._around: Around = nullcontext

    @property
    def asr(self) -> SpeechRecognizer:
        if self._asr is None:
            raise ParameterError(f"strategy {self.name} needs a recogniser beside the LLM")
        return self._asr

    @property
    def models(self) -> list[Model]:
        """The LLM first."""
        return [self.llm] if self._asr is None else [self.llm, self._asr]

    @property
    def resident(self) -> list[Model]:
        """The models that stay loaded between requests."""
        return self.models

    def in_load_order(self, models: list[Model]) -> list[Model]:
        return models if self.load_order == "llm-first" else models[::-1]

    @property
    def answers_at_once(self) -> bool:
        """Whether both models work on the same request at the same time."""
        return self.facts.concurrent and not self.facts.streams

    def buffer_bytes(self) -> dict[str, int]:
        """Bytes of the device, by owner, that the strategy takes beside the models' weights."""
        return {}

    def bytes_by_owner(self, models: Sequence[Model]) -> dict[str, int]:
        """Weights of those of the models that are loaded on the device, their processors where
        those share it, and the strategy's own buffers."""
        owners = {}
        for model in models:
            if not model.loaded or model.device.name != self.device.name:
                continue
            weights = model.weights_bytes()
            # no bytes: they are away, and a row would compare nothing with the prediction
            if weights != 0:
                owners[f"{model.name} weights"] = weights or 0
            if model.processor_bytes is not None:
                owners[f"{model.name} processor"] = model.processor_bytes
        return owners | self.buffer_bytes()

    def host_copy_bytes(self) -> int:
        """Bytes of host memory that weights wait in."""
        return 0

    def open(self) -> None:
        if self.facts.concurrent:  # on a CPU each model gets half the cores
            self.device.concurrent_models = 2
        for model in self.in_load_order(self.resident):
            with stage(model, "load"):
                model.load()

    def close(self) -> None:
        for model in self.models:
            if model.loaded:
                model.unload()
        self.device.release_caches()
        self.device.concurrent_models = 1

    def serve(self, request: Request, *, around: Around = nullcontext) -> CompletedRequest:
        """Serve one request; the device is idle before and after. `around` makes a context for
        each model's share of it, by the model's name."""
        self._around = around
        self.device.synchronize()
        start_s = time.perf_counter()
        texts = self._serve(request)
        self.device.synchronize()
        return completed(request, texts, start_s, time.perf_counter(), self.drain_spans())

    def drain_spans(self) -> list[PhaseSpan]:
        return [span for model in self.models for span in model.drain_spans()]

    def stream(
        self, inbox: ArrivalQueue, *, measure: Measure = nullcontext
    ) -> Iterator[CompletedRequest]:
        """Serve what comes in. `measure` is entered around each request or, where the variant
        works on several at once, around all of them together."""
        if self.facts.streams:
            with measure():
                yield from self._overlapped(inbox)
            return
        for request in inbox:
            with measure():
                served = self.serve(request)
            yield served

    def _overlapped(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        """For variants that work on several requests at once."""
        raise NotImplementedError

    @abstractmethod
    def _serve(self, request: Request) -> Texts:
        """Transcript and answer of this request."""

    def _transcribe(self, request: Request) -> GenerationResult:
        with self._around(self.asr.name):
            return self.asr.transcribe([request.samples], request.asr_options)[0]

    def _answer(self, request: Request) -> GenerationResult:
        with self._around(self.llm.name):
            return self.llm.answer(
                [request.samples], [request.question], max_new_tokens=request.answer_tokens
            )[0]


def completed(
    request: Request, texts: Texts, start_s: float, end_s: float, spans: Iterable[PhaseSpan]
) -> CompletedRequest:
    transcript, answer = texts
    return CompletedRequest(
        request=request,
        transcript=transcript,
        answer=answer,
        start_s=start_s,
        end_s=end_s,
        spans=tuple(spans),
    )


@contextmanager
def stage(model: Model, phase: str, n_bytes: int | None = None) -> Iterator[None]:
    """Record the work inside as a span of this model, waiting for the device at its end; a failure
    inside is reported with the phase's name."""
    model.tell_phase(phase)
    start = time.perf_counter()
    yield
    model.device.synchronize()
    model.spans.append(PhaseSpan(model.name, phase, start, time.perf_counter(), n_bytes))
    model.tell_phase("")
