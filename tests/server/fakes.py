"""Models without weights, to test who works when and what becomes of faults."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest

from hybridlab import catalog
from hybridlab.errors import AudioError, WorkerLostError
from hybridlab.models.base import GenerationResult, ModelSpec, PhaseSpan, TokenCallback, TokenUsage
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.server.admission import Admission
from hybridlab.server.audio_decoder import AudioDecoder, bad_audio, decode_audio
from hybridlab.server.engine import Engine
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import BatchResult, DecodedAudio, InferenceJob, InferenceParams
from hybridlab.server.memory import MemoryBudget, SharedMemory
from hybridlab.server.model_client import ModelClient
from hybridlab.server.model_names import WITHOUT_TEXT
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role, Settings
from hybridlab.units import GB

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@dataclass
class FakeMemory(SharedMemory):
    """A card on which models keep what they have freed, and other programs hold something."""

    n_bytes: int
    others: int = 0
    name: str = "the card"
    models: list[Any] = field(default_factory=list)

    def free_bytes(self) -> int:
        return max(0, self.available_bytes() - sum(model.cached for model in self.models))

    def available_bytes(self) -> int:
        return max(0, self.n_bytes - self.others)

    def others_bytes(self, *, idle: bool) -> int:
        return self.others

    def settle(self) -> None:
        return None


@dataclass
class FakeModel(ModelClient):
    """Says its model and the job's question; `serve_s` is how long a call takes. `plan` holds, call
    by call, an error to raise or None. On a `memory` it takes `needs` for a call and keeps it."""

    role: Role
    models: list[str]
    serve_s: float = 0.0
    plan: list[Exception | None] = field(default_factory=list)
    #: Models that do not load.
    too_large: set[str] = field(default_factory=set)
    say: Callable[[InferenceJob], str] = lambda job: f"said {job.params.question}"
    #: All that it says of a job, in place of `say`.
    result: Callable[[InferenceJob], GenerationResult] | None = None
    #: Called before each word of a stream, with how many there were.
    before_word: Callable[[int], Awaitable[object]] = lambda told: asyncio.sleep(0)
    active: int = 0
    swaps: bool = False
    tells_times: bool = False
    translates: bool = True
    cached: int = 0
    memory: FakeMemory | None = None
    needs: Callable[[InferenceJob], int] = lambda job: 0
    calls: list[list[str]] = field(default_factory=list)
    asked: list[InferenceParams] = field(default_factory=list)
    #: Of each call, whether its text was streamed.
    listened: list[bool] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)

    def load(self) -> None:
        self._load(0)

    def _load(self, index: int) -> None:
        if self.models[index] in self.too_large:
            raise MemoryError(OUT_OF_MEMORY)
        self.log.append(f"load {self.models[index]}")

    async def infer(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None = None
    ) -> BatchResult:
        self.calls.append([job.params.question for job in jobs])
        self.asked += [job.params for job in jobs]
        self.listened.append(on_text is not None)
        self.journal.append(self.role)
        try:
            await asyncio.sleep(self.serve_s)
            error = self.plan.pop(0) if self.plan else None
            if error is not None:
                raise error
            self._take(sum(map(self.needs, jobs)))
            texts = [self._said(job) for job in jobs]
            if on_text is not None:
                await self._stream([text.text for text in texts], on_text)
        except asyncio.CancelledError:
            self.log.append("kill")
            raise
        return BatchResult([(text,) for text in texts], [PhaseSpan(self.role, "decode", 0.0, 0.5)])

    def _said(self, job: InferenceJob) -> GenerationResult:
        if self.result is not None:
            return self.result(job)
        return GenerationResult(self.say(job), (1, 2), usage=TokenUsage(10, 3))

    def _take(self, n_bytes: int) -> None:
        if self.memory is not None:
            if n_bytes > self.memory.free_bytes() + self.cached:
                raise MemoryError(OUT_OF_MEMORY)
            self.cached = max(self.cached, n_bytes)

    async def _stream(self, said: list[str], on_text: TokenCallback) -> None:
        rows = [re.findall(r"\s*\S+", text) for text in said]
        for told, pieces in enumerate(zip_longest(*rows, fillvalue="")):
            await self.before_word(told)
            if not on_text(pieces):
                self.log.append(f"stopped after {told + 1}")
                return

    def offload(self) -> None:
        self.log.append("offload")

    def switch_to(self, index: int) -> None:
        self.cached = 0
        self._load(index)
        self.active = index

    def release_cache(self) -> None:
        self.cached = 0
        self.log.append("release")

    @property
    def cached_bytes(self) -> int:
        return self.cached

    async def close(self) -> None:
        self.log.append("close")


class InProcessDecoder(AudioDecoder):
    """The worker's own function, here."""

    def __init__(self) -> None:
        super().__init__(Settings())

    async def decode(self, data: bytes) -> DecodedAudio:
        try:
            return decode_audio(data, self.settings.max_audio_s)
        except AudioError as error:
            raise bad_audio(error) from None


def silence(seconds: float = 1.0) -> DecodedAudio:
    return DecodedAudio(np.zeros(round(seconds * catalog.SAMPLE_RATE_HZ), np.float32))


def wanted(name: str, *, role: Role = "llm", seconds: float = 1.0, **more: Any) -> InferenceParams:
    """`more`: of `InferenceParams`, or of its options."""
    options = {field.name for field in fields(TranscribeOptions)} & more.keys()
    asked = TranscribeOptions(
        **{"max_new_tokens": 40, **{name: more.pop(name) for name in options}}
    )
    usual: dict[str, Any] = {"kind": "answer" if role == "llm" else "transcription"}
    return InferenceParams(
        role=role, question=name, audio=silence(seconds), options=asked, **(usual | more)
    )


def admission(role: Role, model: str, budget: MemoryBudget) -> Admission:
    spec = ModelSpec(
        model=model.partition("-")[2].removesuffix(WITHOUT_TEXT),
        backend="transformers" if role == "llm" else "openai-whisper",
        weights="pocket",
        dtype="float32",
    )
    return Admission(role=role, spec=spec, card=catalog.HOST, budget=budget, max_audio_s=2400.0)


class Stage:
    """An engine over fake models; use as `async with Stage(asr(), llm()) as stage`."""

    def __init__(
        self,
        *models: FakeModel,
        shared: bool = False,
        budget_bytes: int = 4 * GB,
        memory: FakeMemory | None = None,
        **options: Any,
    ) -> None:
        """`options`: of `Settings`."""
        self.budget = MemoryBudget(budget_bytes, memory=memory)
        if memory is not None:
            memory.models += models
            for model in models:
                model.memory = memory
        options.setdefault("request_timeout_s", 30.0)
        self.engine = Engine(Settings.from_mapping(options))
        lock = None if shared else asyncio.Lock()
        schedulers = {
            model.role: ModelScheduler(
                model,
                [admission(model.role, name, self.budget) for name in model.models],
                lock,
                self.budget,
                self.engine.settings,
            )
            for model in models
        }
        self.engine.attach(schedulers, InProcessDecoder())
        self.phases: list[tuple[str, str]] = []
        for scheduler in schedulers.values():
            scheduler.on_phase = lambda role, phase, seconds: self.phases.append((role, phase))

    def scheduler(self, role: Role = "llm") -> ModelScheduler:
        return self.engine.schedulers[role]

    def ask(self, name: str, **more: Any) -> InferenceJob:
        """`more`: of `wanted`."""
        (job,) = self.engine.submit(wanted(name, **more))
        return job

    async def idle(self) -> None:
        await until(lambda: not any(s.at_work for s in self.engine.schedulers.values()))

    async def __aenter__(self) -> Stage:
        await self.engine.load()
        self.budget.settle()
        self.engine.run()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()


def asr(*models: str, **options: Any) -> FakeModel:
    return FakeModel("asr", [f"whisper-{m}" for m in models or ("pocket-m",)], **options)


def llm(model: str = "pocket", **options: Any) -> FakeModel:
    return FakeModel("llm", [f"voxtral-{model}"], **options)


def lost() -> WorkerLostError:
    return WorkerLostError("the worker was lost: ended by SIGKILL")


async def refusal(future: asyncio.Future[Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await future
    return caught.value


async def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until it holds; fails the test if it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


def played(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest run an async test, for 20 s at most."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        play(lambda: test(*arguments, **fixtures))

    return run
