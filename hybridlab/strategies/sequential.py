"""Both resident, one works at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Self

from anyio.from_thread import start_blocking_portal

from hybridlab.models.base import GenerationResult
from hybridlab.processes.segments import expand_segments
from hybridlab.strategies.base import Strategy, Texts, completed
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request


class Sequential(Strategy):
    """`plain`: Whisper, then Voxtral; bound by the sum of both times.

    `empty-cache`: the allocator's cache is given back in between, which trades latency for a
    smaller reservation. `expandable-segments`: the allocator's segments grow in place (CUDA only),
    which fragments less. `asyncio`: an orchestrator has `max_in_flight` requests on the way and
    lets one model at a time at the device; bound as `plain`, and a request waits for another one's
    turn. `batched`: up to `batch` requests that are there go through each model in one call;
    bound by compute rather than by the weights that every decoded token reads, at the price of
    the batch's bytes and of waiting for its longest member.
    """

    name = "sequential"

    def __init__(self, *args: Any, max_in_flight: int = 2, batch: int = 4, **options: Any) -> None:
        super().__init__(*args, **options)
        self.max_in_flight = max_in_flight
        self.batch = batch

    def open(self) -> None:
        if self.facts.expands_segments:
            expand_segments(self.device)
        super().open()

    def _serve(self, request: Request) -> Texts:
        texts = []
        for work in (self._transcribe, self._answer):
            texts.append(work(request))
            if self.facts.clears_cache:
                self.device.release()
        return texts[0], texts[1]

    def _overlapped(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        return self._batches(inbox) if self.variant == "batched" else self._orchestrated(inbox)

    def _batches(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        while taken := inbox.take(self.batch):
            start_s, samples = time.perf_counter(), [request.samples for request in taken]
            most = max(request.max_new_tokens for request in taken)
            language, questions = taken[0].language, [request.question for request in taken]
            transcripts = self.asr.transcribe(samples, language=language, max_new_tokens=most)
            answers = self.llm.answer(samples, questions, max_new_tokens=most)
            self.device.synchronize()
            end_s, spans = time.perf_counter(), self.drain_spans()
            batch_spans, longest = tuple(spans), max(len(answer.tokens) for answer in answers)
            for request, *texts in zip(taken, transcripts, answers, strict=True):
                served = completed(request, (texts[0], texts[1]), start_s, end_s, spans)
                yield replace(
                    served, batch=len(taken), batch_spans=batch_spans, longest_answer=longest
                )
                spans = []  # the batch's spans stand once, with its first request

    def _orchestrated(self, inbox: ArrivalQueue) -> Iterator[CompletedRequest]:
        """Requests in the order in which they are done. The loop has a thread of its own: a
        notebook's kernel has one at work in this thread already."""
        with _Turns() as turns, start_blocking_portal() as portal:
            slots = {
                portal.start_task_soon(self._slot, inbox, turns) for _ in range(self.max_in_flight)
            }
            try:
                while slots:
                    done, slots = wait(slots, return_when=FIRST_COMPLETED)
                    for served in [slot.result() for slot in done]:
                        if served is not None:
                            slots.add(portal.start_task_soon(self._slot, inbox, turns))
                            yield served
            finally:  # the portal waits for threads that wait for requests
                inbox.stop()

    async def _slot(self, inbox: ArrivalQueue, turns: _Turns) -> CompletedRequest | None:
        """The next request from its arrival to its end; None when there will be no more."""
        taken = await asyncio.to_thread(inbox.take)
        if not taken:
            return None
        start_s = time.perf_counter()
        async with turns.lock:
            transcript = await turns.compute(self._transcribe, taken[0])
            spans = self.asr.drain_spans()
        async with turns.lock:
            answer = await turns.compute(self._answer, taken[0])
            spans += self.llm.drain_spans()
            self.device.synchronize()
        return completed(taken[0], (transcript, answer), start_s, time.perf_counter(), spans)


class _Turns:
    """One at a time at the device, always on the same thread: a new one would want threads of its
    own for its sums, which libgomp ends the process for where memory is short."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    async def compute(
        self, work: Callable[[Request], GenerationResult], request: Request
    ) -> GenerationResult:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
