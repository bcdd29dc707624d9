"""Models that live in a worker: the same interface, the work in another process.

A worker that is lost in the middle of a request is started again, its model loaded again, and the
request tried once more; a second loss is the caller's `WorkerLostError`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab.audio import Samples
from hybridlab.devices import Device, resolve_device
from hybridlab.devices.process_memory import ProcessMemory, Report
from hybridlab.errors import WorkerLostError
from hybridlab.models.base import (
    AudioLanguageModel,
    GenerationResult,
    Model,
    ModelSpec,
    PhaseSpan,
    Role,
    SpeechRecognizer,
    TokenCallback,
    compute_values,
)
from hybridlab.models.factory import make_asr, make_llm
from hybridlab.models.transcription import DEFAULT_OPTIONS, TranscribeOptions
from hybridlab.processes.worker import Worker, emit


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What a call gave, and the state of the model after it."""

    value: Any
    spans: list[PhaseSpan]
    loaded: bool
    weights_bytes: int | None
    processor_bytes: int | None
    attention_kernel: str | None
    logits_finite: bool | None
    report: Report


class _Remote(Model):
    """The caller's side: remembers the state that the last answer told. Words are told while they
    are decoded by `ask_async` alone."""

    def __init__(
        self,
        spec: ModelSpec,
        device: Device,
        worker: Worker,
        *,
        concurrent_models: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`concurrent_models`: how many compute on the device at the same time; `environment`: set
        before the worker first touches the device."""
        super().__init__(spec, device)
        self.worker = worker
        self._concurrent_models = concurrent_models
        self._environment = dict(environment or {})
        self._loaded = False
        self._weights_bytes: int | None = None
        #: Its process as the device counts it.
        self.member = self._begin()

    def _begin(self) -> ProcessMemory:
        """A fresh worker that hosts the model, nothing loaded yet."""
        pid = self.worker.start().call(os.getpid)
        member = self.device.track_process(self.name, pid, self._release)
        self.worker.call(
            _host,
            self.role,
            self.spec,
            self.device.name,
            concurrent_models=self._concurrent_models,
            environment=self._environment,
            exact=self.device.exact,
        )
        return member

    @property
    def loaded(self) -> bool:
        return self._loaded

    def load(self) -> None:
        self.ask("load")

    def unload(self) -> None:
        self.ask("unload")

    def leave(self) -> None:
        """Its worker is about to be ended."""
        self.member.leave()
        self._loaded = False

    def module(self) -> None:
        return None  # torch holds it in another process

    def weights_bytes(self) -> int | None:
        return self._weights_bytes if self._loaded else None

    def begin_again(self, spec: ModelSpec | None = None) -> None:
        """A fresh worker in place of the one before, for this model or for one of another spec;
        nothing is loaded yet."""
        self.restarts += 1
        if spec is not None:
            self.spec = spec
        self.member.leave()
        self._loaded = False
        self.member = self._begin()

    def _release(self) -> None:
        if self._loaded:
            self.ask("release")

    def _request(self, method: str, *arguments: Any, **keywords: Any) -> list[GenerationResult]:
        """A request to the model, tried once more when its process is lost."""
        start = time.perf_counter()
        try:
            return list(self.ask(method, *arguments, **keywords))
        except WorkerLostError:
            self.spans.append(PhaseSpan(self.name, "lost", start, time.perf_counter()))
        self._restart()
        return list(self.ask(method, *arguments, **keywords))

    def _restart(self) -> None:
        start = time.perf_counter()
        self.begin_again()
        self.load()
        self.spans.append(PhaseSpan(self.name, "restart", start, time.perf_counter()))

    def ask(self, method: str | Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """A method of the model, or a function of it and more, where it is; all must pickle."""
        try:
            reset = self.member.wants_reset()
            answer = self.worker.call(_ask, method, arguments, keywords, reset_peak=reset)
        except WorkerLostError:
            self._is_lost()
            raise
        except Exception:
            if self.on_phase is not None:  # where it happened
                self.on_phase(self.worker.call(_last_phase))
            raise
        return self._took_note(answer)

    async def ask_async(
        self,
        method: str | Callable[..., Any],
        *arguments: Any,
        on_text: TokenCallback | None = None,
        **keywords: Any,
    ) -> Any:
        """As `ask`, for an event loop. It is tried once: what becomes of a request whose worker is
        lost is the caller's. `on_text` is called with the words as they are decoded
        (`Model.on_text`); cancelling ends the worker."""
        try:
            reset = self.member.wants_reset()
            tells = on_text is not None
            answer = await self.worker.call_async(
                on_text, _ask, method, arguments, keywords, reset_peak=reset, tells=tells
            )
        except (WorkerLostError, asyncio.CancelledError):
            self._is_lost()
            raise
        return self._took_note(answer)

    def _is_lost(self) -> None:
        self.member.ended = True
        self._loaded = False

    def _took_note(self, answer: _Answer) -> Any:
        self._loaded = answer.loaded
        self._weights_bytes = answer.weights_bytes
        self.processor_bytes = answer.processor_bytes
        self.attention_kernel = answer.attention_kernel
        self.logits_finite = answer.logits_finite
        self.member.update(answer.report)
        self.spans.extend(answer.spans)
        return answer.value


class WorkerRecognizer(_Remote, SpeechRecognizer):
    """A Whisper in a worker."""

    def transcribe(
        self, batch: Sequence[Samples], options: TranscribeOptions = DEFAULT_OPTIONS
    ) -> list[GenerationResult]:
        return self._request("transcribe", list(batch), options)


class WorkerLanguageModel(WorkerRecognizer, AudioLanguageModel):
    """A Voxtral in a worker."""

    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        return self._request("answer", list(batch), list(questions), max_new_tokens=max_new_tokens)


# -------------------------------------------------------------------------- inside the worker


#: Requests leave the weights where they are.
_REQUESTS = frozenset({"transcribe", "answer"})


@dataclass
class _Hosted:
    model: Model
    phase: str = ""
    #: As last counted: that walks through all parameters.
    weights_bytes: int | None = None


_hosted: _Hosted | None = None  # one worker, one model


def _host(
    role: Role,
    spec: ModelSpec,
    device_name: str,
    *,
    concurrent_models: int,
    environment: Mapping[str, str],
    exact: bool,
) -> None:
    """Make the model; the environment first, since a library may read it when it is loaded."""
    global _hosted
    os.environ.update(environment)
    compute_values(spec)
    device = resolve_device(device_name)
    device.concurrent_models = concurrent_models
    if exact:
        device.count_exactly()
    make: Callable[..., Model] = make_llm if role == "llm" else make_asr
    _hosted = _Hosted(make(spec, device))
    _hosted.model.on_phase = _enter


def _enter(phase: str) -> None:
    _the_hosted().phase = phase or "between phases"


def _last_phase() -> str:
    return _the_hosted().phase


def _the_hosted() -> _Hosted:
    if _hosted is None:
        raise RuntimeError("this worker was asked before it was given a model")
    return _hosted


def _ask(
    method: str | Callable[..., Any],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    *,
    reset_peak: bool,
    tells: bool = False,
) -> _Answer:
    hosted = _the_hosted()
    model, device = hosted.model, hosted.model.device
    model.on_text = emit if tells else None
    if reset_peak:
        device.reset_peak()
    if method in ("load", "unload"):
        hosted.phase = method
    if callable(method):
        value = method(model, *arguments, **keywords)
    else:
        owner: Any = device if method == "release" else model
        value = getattr(owner, method)(*arguments, **keywords)
    device.synchronize()
    if method not in _REQUESTS:
        hosted.weights_bytes = model.weights_bytes() if model.loaded else None
    return _Answer(
        value=value,
        spans=model.drain_spans(),
        loaded=model.loaded,
        weights_bytes=hosted.weights_bytes,
        processor_bytes=model.processor_bytes,
        attention_kernel=model.attention_kernel,
        logits_finite=model.logits_finite,
        report=_report(device),
    )


def _report(device: Device) -> Report:
    if device.is_host:  # the kernel tells the caller
        return Report(0, 0, 0)
    return Report(device.used_bytes(), device.peak_bytes(), device.reserved_bytes() or 0)
