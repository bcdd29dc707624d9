"""Both resident, one works at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from anyio.from_thread import start_blocking_portal

from hybridlab.processes.segments import expand_segments
from hybridlab.strategies.base import Strategy, Texts, completed
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request


class Sequential(Strategy):
    """`plain`: Whisper, then Voxtral; bound by the sum of both times.

    `empty-cache`: the allocator's cache is given back in between. `expandable-segments`: its
    segments grow in place (CUDA only). `asyncio`: `max_in_flight` requests are on the way, and one
    model at a time is at the device. `batched`: up to `batch` requests that are there go through
    each model in one call; bound by compute rather than by the weights that every token reads.
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
            most = max(request.answer_tokens for request in taken)
            questions = [request.question for request in taken]
            transcripts = self.asr.transcribe(samples, taken[0].asr_options)
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
        lock = asyncio.Lock()
        # the device is used on one thread alone: a new one would want threads of its own for its
        # sums, which libgomp ends the process for where memory is short
        with (
            ThreadPoolExecutor(1, thread_name_prefix="device") as thread,
            start_blocking_portal() as portal,
        ):

            def start() -> Future[CompletedRequest | None]:
                return portal.start_task_soon(self._slot, inbox, lock, thread)

            slots = {start() for _ in range(self.max_in_flight)}
            try:
                while slots:
                    done, slots = wait(slots, return_when=FIRST_COMPLETED)
                    for served in [slot.result() for slot in done]:
                        if served is not None:
                            slots.add(start())
                            yield served
            finally:  # the portal waits for threads that wait for requests
                inbox.stop()

    async def _slot(
        self, inbox: ArrivalQueue, lock: asyncio.Lock, thread: ThreadPoolExecutor
    ) -> CompletedRequest | None:
        """The next request from its arrival to its end, one model at a time at the device; None
        when there will be no more."""
        taken = await asyncio.to_thread(inbox.take)
        if not taken:
            return None
        start_s, loop = time.perf_counter(), asyncio.get_running_loop()
        async with lock:
            transcript = await loop.run_in_executor(thread, self._transcribe, taken[0])
            spans = self.asr.drain_spans()
        async with lock:
            answer = await loop.run_in_executor(thread, self._answer, taken[0])
            spans += self.llm.drain_spans()
            self.device.synchronize()
        return completed(taken[0], (transcript, answer), start_s, time.perf_counter(), spans)
