"""Both resident, both at work on the same request."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from hybridlab.models.base import GenerationResult
from hybridlab.strategies.base import Strategy, Texts
from hybridlab.strategies.requests import Request


class Parallel(Strategy):
    """One thread for each model; on a CPU each gets half the cores. The variant says where the
    models are, and so what they share and what bounds them:

    `threads`: Python's lock between kernels, then the cores or the memory bus.
    `streams`: the same with a CUDA stream each, Whisper's first; launches still take turns.
    `processes`: no shared lock; on a GPU slices of time and a context each.
    `processes-mps`: kernels of both run at once: the bus and the multiprocessors.
    `ctranslate2`: Whisper computes without Python's lock: the device.
    `whisper-on-cpu`: the slower of the two, mostly Whisper on cores that launch kernels too.
    `single-container`: as `processes`, and each sound's way through an upload and a decoder.
    `separate-containers`: the same, with libraries of each one's own, each sound uploaded twice.
    """

    name = "parallel"

    def open(self) -> None:
        """`UnavailableError` for `streams` on a device without them."""
        # the same thread for all requests: a new one would begin with a heap and threads of its own
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="asr")
        self._lanes: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
        if self.variant == "streams":
            self._lanes = {
                self.asr.name: self.device.new_stream(first=True),
                self.llm.name: self.device.new_stream(),
            }
        super().open()

    def close(self) -> None:
        self._pool.shutdown()
        self._lanes.clear()
        super().close()

    def _serve(self, request: Request) -> Texts:
        transcript = self._pool.submit(self._transcribe, request)
        try:
            answer = self._answer(request)
        finally:  # after a fault, too, no thread is at work any more
            wait([transcript])
        return transcript.result(), answer

    def _transcribe(self, request: Request) -> GenerationResult:
        with self._lanes.get(self.asr.name, nullcontext)():
            return super()._transcribe(request)

    def _answer(self, request: Request) -> GenerationResult:
        with self._lanes.get(self.llm.name, nullcontext)():
            return super()._answer(request)
