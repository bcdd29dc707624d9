"""One request, what came of it, and how requests come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.base import GenerationResult, PhaseSpan
from hybridlab.models.transcription import TranscribeOptions


@dataclass(frozen=True, kw_only=True)
class Request:
    """A clip with a question about it: one transcript and one answer are wanted."""

    id: str
    samples: Samples
    question: str
    language: str = "en"
    #: Of the LLM. None: of a transcript what its audio may need, of an answer
    #: `catalog.ANSWER_TOKENS`.
    max_new_tokens: int | None = None
    #: Of Whisper, a window. None: as many as it has room for.
    asr_max_new_tokens: int | None = None

    @property
    def answer_tokens(self) -> int:
        return self.max_new_tokens or catalog.ANSWER_TOKENS

    @property
    def asr_options(self) -> TranscribeOptions:
        return TranscribeOptions(language=self.language, max_new_tokens=self.asr_max_new_tokens)

    @property
    def llm_options(self) -> TranscribeOptions:
        """Of a transcript by the LLM."""
        return TranscribeOptions(language=self.language, max_new_tokens=self.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class CompletedRequest:
    """A served request; times on the host's perf_counter clock."""

    request: Request
    transcript: GenerationResult
    answer: GenerationResult
    start_s: float
    end_s: float
    spans: tuple[PhaseSpan, ...]
    #: How many requests were served in the same calls; `spans` stand with the first of them.
    batch: int = 1
    #: The spans of a batch, with each of its requests, and the tokens of its longest answer.
    batch_spans: tuple[PhaseSpan, ...] = ()
    longest_answer: int = 0

    @property
    def latency_s(self) -> float:
        return self.end_s - self.start_s


class ArrivalQueue:
    """Hands out requests in their order, none before it is due: all are there at once (a closed
    loop), or each comes at its time (an open one).

    due_s: when each arrives, on the host's perf_counter clock; None: all are there now.
    """

    def __init__(self, requests: Sequence[Request], due_s: Sequence[float] | None = None) -> None:
        self._waiting = list(zip(requests, due_s or [0.0] * len(requests), strict=True))
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def take(self, most: int = 1) -> list[Request]:
        """Wait for the next request; it and up to `most - 1` others that are there by then. Empty
        when there will be no more."""
        with self._lock:
            if not self._waiting:
                return []
            if self._stopped.wait(max(0.0, self._waiting[0][1] - time.perf_counter())):
                return []
            now = time.perf_counter()
            there = sum(due <= now for _, due in self._waiting[:most])
            taken = [request for request, _ in self._waiting[:there]]
            del self._waiting[:there]
            return taken

    def stop(self) -> None:
        """Unblock all consumers: `take` returns nothing from now on."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Request]:
        while taken := self.take():
            yield from taken
