"""Both resident, one works at a time."""

from __future__ import annotations

from hybridlab.strategies.base import Request, Strategy
from hybridlab.tenants.base import Text


class Sequential(Strategy):
    """`plain`: Whisper, then Voxtral. `empty-cache`: the allocator's cache is given back in
    between, which trades latency for a smaller reservation. Bound by the sum of both times."""

    name = "sequential"
    variants = ("plain", "empty-cache")

    def _serve(self, request: Request) -> tuple[Text, Text]:
        transcript = self._transcribe(request)
        if self.variant == "empty-cache":
            self.device.release()
        answer = self._answer(request)
        if self.variant == "empty-cache":
            self.device.release()
        return transcript, answer
