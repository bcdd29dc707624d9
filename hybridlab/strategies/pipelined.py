"""Both resident, each at work on another request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hybridlab.models.base import GenerationResult, PhaseSpan
from hybridlab.strategies.base import Strategy, Texts, completed
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request


@dataclass(frozen=True)
class _Transcribed:
    """A request that the recogniser is through with."""

    request: Request
    transcript: GenerationResult
    start_s: float
    spans: list[PhaseSpan]


class Pipelined(Strategy):
    """`prefetch`: the recogniser on request i+1, on a thread of its own, while the LLM is on i.
    Bound by the slower model and by what both share: the GIL, the cores, the memory bus. A single
    request is no faster than under `sequential`."""

    name = "pipelined"

    def _serve(self, request: Request) -> Texts:
        return self._transcribe(request), self._answer(request)

    def _overlapped(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="asr") as pool:
            try:
                ahead = pool.submit(self._next, inbox)
                while (done := ahead.result()) is not None:
                    ahead = pool.submit(self._next, inbox)
                    texts = (done.transcript, self._answer(done.request))
                    self.device.synchronize()
                    end_s, spans = time.perf_counter(), self.llm.drain_spans()
                    yield completed(done.request, texts, done.start_s, end_s, [*done.spans, *spans])
            finally:  # after a fault or an early end, too, the thread must not wait on
                inbox.stop()

    def _next(self, inbox: ArrivalQueue) -> _Transcribed | None:
        taken = inbox.take()
        if not taken:
            return None
        start_s = time.perf_counter()
        transcript = self._transcribe(taken[0])
        return _Transcribed(taken[0], transcript, start_s, self.asr.drain_spans())
