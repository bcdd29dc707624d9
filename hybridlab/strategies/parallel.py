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
    """One thread for each model; the variant says where the models are and what they share. On a
    CPU each gets half the cores.

    `threads`: one process, one default stream. Bound by Python's lock between kernels, and by the
    cores or the memory bus that both share: two threads do not make two devices.
    `streams`: a CUDA stream each, Whisper's with the higher priority. Kernels may overlap where one
    leaves multiprocessors idle; decoding reads all weights for each token, so the memory bus bounds
    it, and launches still take turns at Python's lock.
    `processes`: a worker each, so no shared lock. On a GPU the driver gives one process after the
    other the whole card in slices of time: bound by the sum of both, with a context each to pay in
    bytes. On a CPU bound by the slower model, which has half the cores.
    `processes-mps`: the same two workers behind NVIDIA MPS, which lets their kernels run at once:
    bound by the bus and the multiprocessors instead of the time slices.
    `ctranslate2`: Whisper by CTranslate2, which lets go of Python's lock while it computes and
    launches from C++: of `threads`' bounds the device's remain.
    `whisper-on-cpu`: Whisper on the host while Voxtral has the GPU: bound by the slower of the two,
    on most hosts Whisper on its cores, which also launch Voxtral's kernels.
    `single-container`: `processes` inside one `hybridlab serve`, asked over HTTP on loopback: its
    bounds, and the way of each sound through an upload and a decoder.
    `separate-containers`: a `hybridlab serve` for each model behind a third: as
    `single-container`, with interpreter and libraries of each one's own, and each sound uploaded
    twice.
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
