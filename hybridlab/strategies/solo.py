"""The control: is Whisper needed at all?"""

from __future__ import annotations

from hybridlab.strategies.base import Request, Strategy
from hybridlab.tenants.base import Tenant, Text


class Solo(Strategy):
    """Voxtral alone transcribes and answers: two requests to one model."""

    name = "solo"
    variants = ("naive",)

    @property
    def tenants(self) -> list[Tenant]:
        return [self.analyst]

    def _serve(self, request: Request) -> tuple[Text, Text]:
        transcript = self.analyst.transcribe(
            [request.samples], language=request.language, max_new_tokens=request.max_new_tokens
        )[0]
        return transcript, self._answer(request)
