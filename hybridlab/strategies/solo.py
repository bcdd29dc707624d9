"""The control: is a recogniser needed at all?"""

from __future__ import annotations

from hybridlab.models.base import Model
from hybridlab.strategies.base import Strategy, Texts
from hybridlab.strategies.requests import Request


class Solo(Strategy):
    """Voxtral alone transcribes and answers.

    `two-requests`: two requests to one model, which encodes and prefills the audio twice; bound by
    that compute. `shared-prefix`: both prompts begin with the audio, which is encoded and prefilled
    once; bound by the weights that every decoded token reads.
    """

    name = "solo"

    @property
    def models(self) -> list[Model]:
        return [self.llm]

    def _serve(self, request: Request) -> Texts:
        if self.variant == "shared-prefix":
            prefilled = self.llm.prefill(request.samples)
            transcript = prefilled.transcribe(request.llm_options)
            return transcript, prefilled.answer(
                request.question, max_new_tokens=request.answer_tokens
            )
        transcript = self.llm.transcribe([request.samples], request.llm_options)[0]
        return transcript, self._answer(request)
