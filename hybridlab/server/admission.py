"""What fits: predicted by the planner, against the memory that the device has free."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.catalog import Card
from hybridlab.models.base import ModelSpec
from hybridlab.planner import (
    Request,
    voxtral_request_bytes,
    whisper_load_peak_bytes,
    whisper_request_bytes,
    whisper_weights_bytes,
)
from hybridlab.planner.allocator import request_cache_bytes, resident_cache_bytes
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.limits import largest_fitting
from hybridlab.server.errors import too_long
from hybridlab.server.jobs import InferenceJob, InferenceParams
from hybridlab.server.memory import MemoryBudget
from hybridlab.server.settings import Role


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What one model's calls take above its weights, in bytes, and the longest audio for it."""

    role: Role
    #: None for a model of another server, which takes nothing here.
    spec: ModelSpec | None
    card: Card
    budget: MemoryBudget
    max_audio_s: float
    #: An ASR whose weights come in with a call and count as part of it.
    swapped: bool = False

    def bytes_of(
        self, *, audio_s: float, batch: int = 1, new_tokens: int = 200, beams: int = 1
    ) -> int:
        request = Request(audio_s=audio_s, batch=batch, new_tokens=new_tokens, beams=beams)
        return self._request_bytes(request) + (self.weights_bytes if self.swapped else 0)

    def _request_bytes(self, request: Request) -> int:
        if self.spec is None:
            return 0
        if self.role == "llm":
            return voxtral_request_bytes(
                catalog.voxtral(self.spec.model),
                request,
                dtype=self.spec.dtype,
                card=self.card,
                attention=self.spec.attention,
            )
        return whisper_request_bytes(
            catalog.whisper(self.spec.model),
            request,
            backend=self.spec.backend,
            dtype=self.spec.dtype,
            card=self.card,
        )

    def with_slack(self, n_bytes: int) -> int:
        """What the device may have to give for so many bytes: an allocator takes whole segments,
        for long audio most beside a prompt."""
        beside = request_cache_bytes(self.card, {"prefill": Estimate.exact(n_bytes)}, "flash")
        return n_bytes + (beside + resident_cache_bytes(self.card)).expected

    @property
    def weights_bytes(self) -> int:
        """Of an ASR."""
        return self._of_whisper(whisper_weights_bytes)

    @property
    def load_peak_bytes(self) -> int:
        """Of an ASR."""
        return self._of_whisper(whisper_load_peak_bytes)

    def _of_whisper(self, formula: Callable[..., int]) -> int:
        assert self.spec is not None  # a model of another server takes no memory here
        model = catalog.whisper(self.spec.model)
        return formula(model, backend=self.spec.backend, dtype=self.spec.dtype)

    def batch_bytes(self, jobs: list[InferenceJob]) -> int:
        """As if all were as long as the longest, to which they are padded."""
        return self.bytes_of(
            audio_s=max(job.params.audio.seconds for job in jobs),
            batch=len(jobs),
            new_tokens=max(job.max_new_tokens for job in jobs),
            beams=max(job.params.options.beams for job in jobs),
        )

    def fits(self, jobs: list[InferenceJob]) -> bool:
        return self.batch_bytes(jobs) <= self.budget.n_bytes

    def tokens(self, params: InferenceParams, audio_s: float | None = None) -> int:
        """Most tokens of a text: those asked for, but of a transcript no more than one of this
        length may have, which the ASR writes window by window and the LLM in one go."""
        asked = params.options.max_new_tokens
        if params.kind == "answer" and asked is not None:
            return asked
        most = catalog.WHISPER_MAX_TARGET_POSITIONS
        if self.role == "llm":
            most = catalog.transcript_tokens(params.audio.seconds if audio_s is None else audio_s)
        return most if asked is None else min(asked, most)

    def check(self, params: InferenceParams) -> None:
        """`ApiError` with the longest audio that would be served, or with what another program
        holds of the memory for it."""
        audio_s, limit_s, why = params.audio.seconds, self.max_audio_s, "the server"
        if self.role == "llm":
            answers = params.kind == "answer"
            own_s = catalog.VOXTRAL_MAX_ANSWER_S if answers else catalog.VOXTRAL_MAX_TRANSCRIBE_S
            limit_s, why = min((limit_s, why), (own_s, "Voxtral"))
        self.budget.refresh()

        def n_bytes(seconds: float) -> int:
            tokens = self.tokens(params, seconds)
            return self.bytes_of(audio_s=seconds, new_tokens=tokens, beams=params.options.beams)

        if audio_s <= limit_s and n_bytes(audio_s) <= self.budget.n_bytes:
            return
        windows = largest_fitting(
            lambda count: n_bytes(count * catalog.WINDOW_S) <= self.budget.n_bytes,
            most=max(1, math.ceil(limit_s / catalog.WINDOW_S)),
        )
        longest_s = min(limit_s, windows * catalog.WINDOW_S)
        if audio_s <= limit_s:
            taken = self.budget.taken_by_others(n_bytes(audio_s), longest_s=longest_s)
            if taken is not None:
                raise taken
        raise too_long(
            audio_s, longest_s, why if longest_s == limit_s else "the memory that is free"
        )
