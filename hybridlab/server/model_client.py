"""How the scheduler calls one model: its interface, and a model in a worker process behind it.

What is not async blocks, and is called from a thread of the model's own.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.base import GenerationResult, Model, ModelSpec, TokenCallback
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.worker_model import WorkerLanguageModel, WorkerRecognizer
from hybridlab.processes.segments import expand_segments
from hybridlab.server.errors import overflow_words
from hybridlab.server.jobs import BatchResult, InferenceJob
from hybridlab.server.model_names import model_id
from hybridlab.server.settings import Role

log = logging.getLogger("hybridlab.server")


class ModelClient(ABC):
    """One model as the scheduler sees it; what is not abstract is a worker's alone to do. All of it
    raises the lab's own errors: `WorkerLostError`, an allocation failure (`out_of_memory`), or
    another fault."""

    role: Role
    #: Names for clients, from large to small, of models that can take each other's place.
    models: list[str]
    #: Which of them is loaded.
    active: int = 0
    #: Calls at the same time.
    max_calls: int = 1
    #: Whether one call may serve several jobs.
    batches: bool = True
    #: Whether its weights are on the device during its own calls alone.
    swaps: bool = False
    #: Whether its segments and words have times of their own.
    tells_times: bool = False
    #: Whether it writes in English what is said in another language.
    translates: bool = False

    def language(self, code: str) -> str:
        """What it is asked for where a client asks for this code of Whisper's. `ParameterError`
        for one that it does not know."""
        return code

    @abstractmethod
    async def infer(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None = None
    ) -> BatchResult:
        """One call for jobs that fit together. `on_text` is given the new text of each job while it
        is decoded, where the model can tell; after False from it the texts may be cut. Cancelling
        ends the model's process."""

    @property
    def overflows_in(self) -> str:
        """The dtype in which its numbers have overflowed, so that its texts mean nothing; '' where
        that was not seen."""
        return ""

    async def health(self) -> str:
        """Why it takes no calls now although it is loaded; '' where it does."""
        if dtype := self.overflows_in:
            return overflow_words(self.models[self.active], dtype)
        return ""

    def load(self) -> None:
        """Make it ready to serve."""
        return None

    def switch_to(self, index: int) -> None:
        """A fresh worker with this one of `models`, loaded: the same again, a smaller or larger."""
        return None

    def offload(self) -> None:
        """Its turn is over: where weights are swapped, they leave the device."""
        return None

    def release_cache(self) -> None:
        """Give freed memory back to the driver."""
        return None

    @property
    def cached_bytes(self) -> int:
        """What its allocator keeps for later, and other processes lack."""
        return 0

    @property
    def offloadable_bytes(self) -> int:
        """Weights that are swapped, as long as they are on the device."""
        return 0

    @abstractmethod
    async def close(self) -> None:
        """End its process, or the connections to its server."""


class WorkerModelClient(ModelClient):
    """A model of the lab in a worker. `specs`: from large to small."""

    def __init__(
        self,
        remote: WorkerRecognizer | WorkerLanguageModel,
        role: Role,
        specs: Sequence[ModelSpec],
        variant: catalog.Variant,
    ) -> None:
        self.remote = remote
        self.role = role
        self.specs = list(specs)
        self.variant = variant
        self.models = [model_id(role, spec.model, spec.weights) for spec in specs]
        self.tells_times = role == "asr" and specs[0].timestamps
        self.translates = role == "asr" and catalog.whisper(specs[0].model).translates
        self._on_device = False  # of weights that are swapped
        self._retained_bytes = 0  # what its allocator kept when it was last told to keep nothing
        self._swap = variant.name if variant.offloader and role == "asr" else ""
        self.swaps = bool(self._swap)
        self.batches = variant.batches

    def load(self) -> None:
        if self.variant.expands_segments:
            self.remote.ask(_expand_segments)
        self._on_device = False
        self.remote.ask(_load, self._swap)
        self._note_retained()
        log.info("%s: %s in process %s", self.role, self.remote.spec.model, self.remote.worker.pid)

    async def infer(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None = None
    ) -> BatchResult:
        if self._swap:
            self._on_device = True
            await self.remote.ask_async(_bring_in)
        if jobs[0].params.kind == "answer":
            texts = await self._answers(jobs, on_text)
        else:
            texts = await self._transcripts(jobs, on_text)
        if self.variant.clears_cache:
            await self.remote.ask_async(_release_cache)
            self._note_retained()
        return BatchResult(texts, self.remote.drain_spans())

    @property
    def overflows_in(self) -> str:
        return self.remote.spec.dtype if self.remote.logits_finite is False else ""

    async def _answers(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None
    ) -> list[tuple[GenerationResult, ...]]:
        texts: list[GenerationResult] = await self.remote.ask_async(
            "answer",
            [job.params.audio.samples for job in jobs],
            [job.params.question for job in jobs],
            max_new_tokens=jobs[0].max_new_tokens,
            on_text=on_text,
        )
        return [(text,) for text in texts]

    async def _transcripts(
        self, jobs: Sequence[InferenceJob], on_text: TokenCallback | None
    ) -> list[tuple[GenerationResult, ...]]:
        """Whisper is given windows, as it would cut the audio itself, so that the window of each
        text is known; Voxtral takes the whole audio."""
        whole = self.role == "llm"
        audios = [job.params.audio for job in jobs]
        windows = [[audio.samples] if whole else audio.windows() for audio in audios]
        asked = jobs[0].params.options
        options = replace(asked, language=self._language_now(asked.language))
        if on_text is not None and not whole:
            return await self._window_by_window(windows, options, on_text)
        texts: list[GenerationResult] = await self.remote.ask_async(
            "transcribe",
            [window for own in windows for window in own],
            options,
            on_text=on_text,
        )
        rows = iter(texts)
        return [tuple(next(rows) for _ in own) for own in windows]

    def language(self, code: str) -> str:
        return catalog.language_for(self.specs[0].model, code)

    def _language_now(self, asked: str) -> str:
        """A smaller model in another's place detects the language where it lacks the one that was
        asked for, as all but the newest lack Cantonese."""
        known = catalog.model_named(self.specs[self.active].model).languages
        return asked if self.active == 0 or asked in known else ""

    async def _window_by_window(
        self, windows: list[list[Samples]], options: TranscribeOptions, on_text: TokenCallback
    ) -> list[tuple[GenerationResult, ...]]:
        """The first windows of all audios in one call, then the second ones, and so on, so that
        each text is told before the next is read."""
        found: list[list[GenerationResult]] = [[] for _ in windows]
        for turn in range(max(map(len, windows))):
            rows = [row for row, own in enumerate(windows) if turn < len(own)]
            pieces = [windows[row][turn] for row in rows]
            texts = await self.remote.ask_async("transcribe", pieces, options)
            told = [""] * len(windows)
            for row, text in zip(rows, texts, strict=True):
                begun = text.text and any(earlier.text for earlier in found[row])
                told[row] = f" {text.text}" if begun else text.text
                found[row].append(text)
            if not on_text(told):
                break
        return [tuple(own) for own in found]

    def offload(self) -> None:
        if self._on_device:
            self._on_device = False
            self.remote.ask(_offload)
            self._note_retained()

    def switch_to(self, index: int) -> None:
        self.remote.begin_again(self.specs[index])
        self.load()
        self.active = index

    def release_cache(self) -> None:
        self.remote.ask(_release_cache)
        self._note_retained()

    def _note_retained(self) -> None:
        self._retained_bytes = self._free_in_allocator()

    def _free_in_allocator(self) -> int:
        member = self.remote.member
        reserved = member.reserved_bytes()
        return max(0, reserved - member.used_bytes()) if reserved else 0

    @property
    def cached_bytes(self) -> int:
        return max(0, self._free_in_allocator() - self._retained_bytes)

    @property
    def offloadable_bytes(self) -> int:
        return (self.remote.weights_bytes() or 0) if self._on_device else 0

    async def close(self) -> None:
        self.remote.leave()
        await asyncio.to_thread(self.remote.worker.close)


# -------------------------------------------------------------------------- inside the worker


def _load(model: Model, swap: str) -> None:
    """A model that is swapped is brought in once and let go, so that what would fail at the first
    request fails now."""
    from hybridlab.models.source import check_source

    check_source(model.spec)
    if swap:
        _load_to_swap(model, swap)
    else:
        model.load()
    _release_cache(model)  # what loading took beside the weights is the next one's


def _load_to_swap(model: Model, swap: str) -> None:
    from hybridlab.strategies.swapping import make_offloader

    mover = make_offloader(swap, model.device, swap="asr")
    mover.prepare(model)
    mover.finalize()
    mover.onload(model)
    mover.offload(model)
    model.__dict__["mover"] = mover  # one worker, one model: it lives as long


def _bring_in(model: Model) -> None:
    model.__dict__["mover"].onload(model)


def _offload(model: Model) -> None:
    model.__dict__["mover"].offload(model)
    _release_cache(model)


def _release_cache(model: Model) -> None:
    model.device.release()
    model.device.release_caches()


def _expand_segments(model: Model) -> None:
    expand_segments(model.device)
