"""Both resident, each at work on another request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hybridlab.models.base import GenerationResult, PhaseSpan
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request


@dataclass(frozen=True)
class _Heard:
    """A request that Whisper is through with."""

    request: Request
    transcript: GenerationResult
    start_s: float
    spans: tuple[PhaseSpan, ...]


class Pipelined(Strategy):
    """`prefetch`: Whisper on request i+1, on a thread of its own, while Voxtral is on i. Bound by
    the slower tenant and by what both share: the GIL, the cores, the memory bus. A single request
    is no faster than under `sequential`."""

    name = "pipelined"
    variants = streaming = ("prefetch",)

    def open(self) -> None:
        self.device.concurrent_models = 2
        super().open()

    def close(self) -> None:
        super().close()
        self.device.concurrent_models = 1

    def _serve(self, request: Request) -> tuple[GenerationResult, GenerationResult]:
        return self._transcribe(request), self._answer(request)

    def _overlapped(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="asr") as pool:
            try:
                ahead = pool.submit(self._next, inbox)
                while (heard := ahead.result()) is not None:
                    ahead = pool.submit(self._next, inbox)
                    answer = self._answer(heard.request)
                    self.device.synchronize()
                    yield CompletedRequest(
                        request=heard.request,
                        transcript=heard.transcript,
                        answer=answer,
                        start_s=heard.start_s,
                        end_s=time.perf_counter(),
                        spans=(*heard.spans, *self.llm.drain_spans()),
                    )
            finally:  # after a fault or an early end, too, the thread must not wait on
                inbox.stop()

    def _next(self, inbox: ArrivalQueue) -> _Heard | None:
        taken = inbox.take()
        if not taken:
            return None
        start = time.perf_counter()
        transcript = self._transcribe(taken[0])
        return _Heard(taken[0], transcript, start, tuple(self.asr.drain_spans()))
