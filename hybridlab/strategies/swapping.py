"""Only one resident at a time, or only Voxtral: weights are loaded again for each request."""

from __future__ import annotations

from typing import Literal

from hybridlab.strategies.base import Strategy, timed
from hybridlab.strategies.requests import Request
from hybridlab.tenants.base import Analyst, Tenant, Text, Transcriber


class Swapping(Strategy):
    """`reload`: drop the weights and load them again from where they came (files are usually in
    the page cache by then). `swap='whisper'` keeps Voxtral resident, `'both'` swaps both.

    Bound by disk, host memory and the link; nothing is ever copied out, since inference does not
    change weights.
    """

    name = "swapping"
    variants = ("reload",)

    def __init__(
        self,
        transcriber: Transcriber | None,
        analyst: Analyst,
        *,
        variant: str,
        swap: Literal["whisper", "both"] = "whisper",
    ) -> None:
        super().__init__(transcriber, analyst, variant=variant)
        self.swap = swap

    @property
    def resident(self) -> list[Tenant]:
        return [self.analyst] if self.swap == "whisper" else []

    def _serve(self, request: Request) -> tuple[Text, Text]:
        self._bring_in(self.transcriber)
        transcript = self._transcribe(request)
        self._drop(self.transcriber)
        self._bring_in(self.analyst)
        answer = self._answer(request)
        if self.swap == "both":
            self._drop(self.analyst)
        return transcript, answer

    def _bring_in(self, tenant: Tenant) -> None:
        if not tenant.loaded:
            with timed(tenant, "load"):
                tenant.load()

    def _drop(self, tenant: Tenant) -> None:
        with timed(tenant, "unload"):
            tenant.unload()
