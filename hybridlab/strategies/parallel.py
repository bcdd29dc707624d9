"""Both resident, both at work on the same request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import Request
from hybridlab.tenants.base import Text


class Parallel(Strategy):
    """`threads`: one thread each, one default stream. Bound by the GIL between kernels, and by the
    cores or the memory bus that both share: two threads do not make two devices."""

    name = "parallel"
    at_once = True
    variants = ("threads",)

    def open(self) -> None:
        super().open()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whisper")

    def close(self) -> None:
        self._pool.shutdown()
        super().close()

    def _serve(self, request: Request) -> tuple[Text, Text]:
        transcript = self._pool.submit(self._transcribe, request)
        try:
            answer = self._answer(request)
        finally:  # after a fault, too, no thread is left at work
            wait([transcript])
        return transcript.result(), answer
