"""One tenant's share of a request, and how shares wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.base import Span, Text

Kind = Literal["transcription", "answer"]


@dataclass(frozen=True)
class Sound:
    """Decoded audio, and the sample numbers at which it is cut into windows for Whisper
    (`audio.windows`); no border: one window."""

    samples: Samples
    borders: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples.size / catalog.SAMPLE_RATE_HZ

    def pieces(self) -> list[Samples]:
        """The windows, each a view of `samples`."""
        edges = [0, *self.borders, self.samples.size]
        return [self.samples[a:b] for a, b in pairwise(edges)]

    def bounds_s(self) -> list[tuple[float, float]]:
        """Start and end of each window in seconds."""
        edges = [0, *self.borders, self.samples.size]
        rate = catalog.SAMPLE_RATE_HZ
        return [(a / rate, b / rate) for a, b in pairwise(edges)]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a tenant made of a job: one text for each window, or one for the whole audio."""

    texts: tuple[Text, ...]
    model: str
    #: The larger model whose place this one has taken, if any.
    instead_of: str = ""
    waited_s: float
    worked_s: float

    @property
    def text(self) -> str:
        return " ".join(text.text for text in self.texts if text.text)


@dataclass(frozen=True)
class Outcome:
    """A tenant's texts for a batch, job by job, and the phases of the call."""

    texts: list[tuple[Text, ...]]
    spans: list[Span]


class Growing:
    """An answer's words as they come, for one reader. What was given is never taken back: an answer
    that begins again, as its worker was lost, must first say the same once more."""

    def __init__(self) -> None:
        self.given = ""
        self._said = ""  # since it last began
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def begin(self) -> None:
        self._said = ""

    def add(self, piece: str) -> bool:
        """Whether it goes with what was given."""
        self._said += piece
        if self.goes_with(self._said):
            self._give(self._said)
            return True
        return self.given.startswith(self._said)

    def end(self, text: str | None) -> None:
        """The whole text, or None where there is none."""
        if text is not None:
            self._give(text)
        self._pieces.put_nowait(None)

    def goes_with(self, text: str) -> bool:
        return text.startswith(self.given)

    def _give(self, text: str) -> None:
        if len(text) > len(self.given):
            self._pieces.put_nowait(text[len(self.given) :])
            self.given = text

    async def pieces(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


@dataclass(eq=False, kw_only=True)
class Job:
    """Times on the host's monotonic clock. Cancelling `future` withdraws it."""

    kind: Kind
    sound: Sound
    question: str = ""
    language: str = "en"
    max_new_tokens: int
    future: asyncio.Future[Said]
    #: None where nobody reads the words before all are there.
    growing: Growing | None = None
    since_s: float = field(default_factory=time.monotonic)
    #: It has been tried, and is tried again by itself: it may be what the fault came from.
    alone: bool = False
    lost: int = 0
    #: It ran out of memory by itself, and is tried again with all that is free of the device.
    starved: bool = False

    def __post_init__(self) -> None:
        if self.growing is not None:
            self.future.add_done_callback(self._end_growing)

    def _end_growing(self, future: asyncio.Future[Said]) -> None:
        assert self.growing is not None
        failed = future.cancelled() or future.exception() is not None
        self.growing.end(None if failed else future.result().text)

    async def words(self) -> AsyncIterator[str]:
        """Pieces of the answer's text as they come, then what `future` raises, if it does."""
        assert self.growing is not None
        async for piece in self.growing.pieces():
            yield piece
        await self.future

    @property
    def wanted(self) -> bool:
        return not self.future.done()

    def fits_with(self, other: Job) -> bool:
        """Whether one call can serve both."""
        return (
            not (self.alone or other.alone)
            and self.kind == other.kind
            and self.language == other.language
            and self.max_new_tokens == other.max_new_tokens
        )


class Waiting:
    """Jobs of one tenant, in their order within each kind; the kinds take turns."""

    def __init__(self) -> None:
        self._jobs: dict[Kind, deque[Job]] = {"transcription": deque(), "answer": deque()}

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def count(self, kind: Kind) -> int:
        return len(self._jobs[kind])

    def add(self, job: Job) -> None:
        self._jobs[job.kind].append(job)

    def put_back(self, jobs: list[Job]) -> None:
        """To the front, in their order: they have waited before."""
        for job in reversed(jobs):
            self._jobs[job.kind].appendleft(job)

    def prune(self) -> None:
        """Forget the jobs that nobody wants any more."""
        for kind, jobs in self._jobs.items():
            self._jobs[kind] = deque(job for job in jobs if job.wanted)

    def jobs(self) -> list[Job]:
        return [job for jobs in self._jobs.values() for job in jobs]

    def take(self, most: int, fits: Callable[[list[Job]], bool]) -> list[Job]:
        """The next batch: of the kind whose turn it is, the first job and those right behind it
        that one call can serve, as long as the batch fits."""
        self.prune()
        kind = next((kind for kind, jobs in self._jobs.items() if jobs), None)
        if kind is None:
            return []
        jobs = self._jobs.pop(kind)
        self._jobs[kind] = jobs  # last in turn from now on
        batch = [jobs.popleft()]
        while jobs and len(batch) < most and batch[0].fits_with(jobs[0]):
            if not fits([*batch, jobs[0]]):
                break
            batch.append(jobs.popleft())
        return batch
