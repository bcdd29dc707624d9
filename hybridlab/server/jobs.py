"""One model's share of a request, and how such shares wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.base import GenerationResult, PhaseSpan, joined
from hybridlab.models.transcription import DEFAULT_OPTIONS, TranscribeOptions
from hybridlab.server.errors import ApiError
from hybridlab.server.settings import Role

Kind = Literal["transcription", "answer"]


@dataclass(frozen=True)
class DecodedAudio:
    """Audio as a model takes it."""

    #: float32 mono at 16 kHz, shape (n,).
    samples: Samples
    #: Sample numbers at which it is cut into windows for Whisper (`audio.windows`); none: one.
    borders: tuple[int, ...] = ()
    #: The upload as it came, for a model of another server; b'' where it is not needed.
    encoded: bytes = field(default=b"", repr=False)
    #: What was done to it so that it can be heard, for the client; '' for nothing.
    note: str = ""

    @property
    def seconds(self) -> float:
        return self.samples.size / catalog.SAMPLE_RATE_HZ

    def windows(self) -> list[Samples]:
        """Each a view of `samples`."""
        return [self.samples[a:b] for a, b in pairwise(self._edges())]

    def bounds_s(self) -> list[tuple[float, float]]:
        """Start and end of each window in seconds."""
        rate = catalog.SAMPLE_RATE_HZ
        return [(a / rate, b / rate) for a, b in pairwise(self._edges())]

    def _edges(self) -> list[int]:
        return [0, *self.borders, self.samples.size]


@dataclass(frozen=True, kw_only=True)
class InferenceParams:
    """What a request wants of one model."""

    role: Role
    kind: Kind
    audio: DecodedAudio
    question: str = ""
    #: Of an answer its limit of tokens alone.
    options: TranscribeOptions = DEFAULT_OPTIONS
    #: The text is read as it comes (`InferenceJob.pieces`).
    stream: bool = False


@dataclass(frozen=True, kw_only=True)
class InferenceResult:
    """What a model made of a job."""

    #: One text for each window, or one for the whole audio.
    texts: tuple[GenerationResult, ...]
    model: str
    #: The larger model in whose place this one answered, if any.
    instead_of: str = ""
    queue_time_s: float
    work_s: float
    #: What another server took in all, where the model is there.
    upstream_s: float | None = None

    @cached_property
    def joined(self) -> GenerationResult:
        """Of a transcript, the whole."""
        return joined(self.texts)

    @property
    def text(self) -> str:
        return self.joined.text


@dataclass(frozen=True)
class BatchResult:
    """A model's texts for a batch, job by job, and the phases of the call."""

    texts: list[tuple[GenerationResult, ...]]
    spans: list[PhaseSpan] = field(default_factory=list)
    #: The one job's result as another server gave it, where the model is there.
    upstream: InferenceResult | None = None


class TokenStream:
    """A text as it comes, for one reader. What was given is never taken back: a text that is
    started again, as its worker was lost, must first repeat what was given."""

    def __init__(self) -> None:
        self.given = ""
        self._current = ""  # since the text was last started
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def restart(self) -> None:
        self._current = ""

    def add(self, piece: str) -> bool:
        """Whether the text so far agrees with what was given."""
        self._current += piece
        if self.agrees_with(self._current):
            self._give(self._current)
            return True
        return self.given.startswith(self._current)

    def end(self, text: str | None) -> None:
        """The whole text, or None where there is none."""
        if text is not None:
            self._give(text)
        self._pieces.put_nowait(None)

    def agrees_with(self, text: str) -> bool:
        return text.startswith(self.given)

    def _give(self, text: str) -> None:
        if len(text) > len(self.given):
            self._pieces.put_nowait(text[len(self.given) :])
            self.given = text

    async def pieces(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


@dataclass(eq=False)
class InferenceJob:
    """Times are on the host's monotonic clock. Cancelling `future` withdraws the job."""

    params: InferenceParams
    #: The most that its text may have: never None, unlike that of `params.options`.
    max_new_tokens: int
    future: asyncio.Future[InferenceResult]
    arrived_s: float = field(default_factory=time.monotonic)
    #: It failed in a batch and is tried again by itself.
    alone: bool = False
    #: How often its worker was lost.
    losses: int = 0
    #: It ran out of memory by itself, and is tried again with all that the device has free.
    after_oom: bool = False

    def __post_init__(self) -> None:
        self.stream = TokenStream() if self.params.stream else None
        if self.stream is not None:
            self.future.add_done_callback(self._end_stream)

    def _end_stream(self, future: asyncio.Future[InferenceResult]) -> None:
        assert self.stream is not None
        failed = future.cancelled() or future.exception() is not None
        self.stream.end(None if failed else future.result().text)

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it comes, then what `future` raises, if it does."""
        assert self.stream is not None
        async for piece in self.stream.pieces():
            yield piece
        await self.future

    @property
    def pending(self) -> bool:
        return not self.future.done()

    def fail(self, error: ApiError) -> None:
        """Unless it is done or has been withdrawn."""
        if self.pending:
            self.future.set_exception(error)

    def fits_with(self, other: InferenceJob) -> bool:
        """Whether one call can serve both."""
        return (
            not (self.alone or other.alone)
            and self.params.kind == other.params.kind
            # of a transcript that is streamed, windows are read one after the other
            and (self.params.kind == "answer" or self.params.stream == other.params.stream)
            and self.params.options == other.params.options
            and self.max_new_tokens == other.max_new_tokens
        )


class RequestQueue:
    """Jobs of one model, in their order within each kind; the kinds take turns."""

    def __init__(self) -> None:
        self._jobs: dict[Kind, deque[InferenceJob]] = {"transcription": deque(), "answer": deque()}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def count(self, kind: Kind) -> int:
        return len(self._jobs[kind])

    def add(self, job: InferenceJob) -> None:
        self._jobs[job.params.kind].append(job)

    def put_back(self, jobs: list[InferenceJob]) -> None:
        """To the front, in their order."""
        for job in reversed(jobs):
            self._jobs[job.params.kind].appendleft(job)

    def prune(self) -> None:
        """Forget the jobs that have been withdrawn."""
        for kind, jobs in self._jobs.items():
            self._jobs[kind] = deque(job for job in jobs if job.pending)

    def jobs(self) -> list[InferenceJob]:
        return [job for jobs in self._jobs.values() for job in jobs]

    def take(self, limit: int, fits: Callable[[list[InferenceJob]], bool]) -> list[InferenceJob]:
        """The next batch: of the kind whose turn it is, the first job and those right behind it
        that one call can serve, as long as the batch fits."""
        self.prune()
        kind = next((kind for kind, jobs in self._jobs.items() if jobs), None)
        if kind is None:
            return []
        jobs = self._jobs.pop(kind)
        self._jobs[kind] = jobs  # last in turn from now on
        batch = [jobs.popleft()]
        while jobs and len(batch) < limit and batch[0].fits_with(jobs[0]):
            if not fits([*batch, jobs[0]]):
                break
            batch.append(jobs.popleft())
        return batch
