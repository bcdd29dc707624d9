"""The control: is Whisper needed at all?"""

from __future__ import annotations

from hybridlab.models.base import Tenant, Text
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import Request


class Solo(Strategy):
    """Voxtral alone transcribes and answers.

    `naive`: two requests to one model, which encodes and prefills the audio twice; bound by that
    compute. `shared-prefix`: both prompts begin with the audio, which is encoded and prefilled
    once; bound by the weights that every decoded token reads.
    """

    name = "solo"
    variants = ("naive", "shared-prefix")

    @property
    def tenants(self) -> list[Tenant]:
        return [self.analyst]

    def _serve(self, request: Request) -> tuple[Text, Text]:
        if self.variant == "shared-prefix":
            heard = self.analyst.hear(request.samples)
            transcript = heard.transcribe(
                language=request.language, max_new_tokens=request.max_new_tokens
            )
            return transcript, heard.answer(request.question, max_new_tokens=request.max_new_tokens)
        transcript = self.analyst.transcribe(
            [request.samples], language=request.language, max_new_tokens=request.max_new_tokens
        )[0]
        return transcript, self._answer(request)
