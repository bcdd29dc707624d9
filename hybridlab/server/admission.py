"""What fits: predicted by the planner, against the memory that the device has free."""

from __future__ import annotations

import math
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
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.limits import largest_fitting
from hybridlab.planner.memory_plan import allocator_cache_bytes
from hybridlab.server.errors import too_long
from hybridlab.server.jobs import InferenceJob, Kind
from hybridlab.server.memory import MemoryBudget
from hybridlab.server.settings import Role

#: As many as a model of the lab writes by default.
TRANSCRIPT_TOKENS_PER_WINDOW = 224


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

    def bytes_of(self, *, audio_s: float, batch: int = 1, new_tokens: int = 200) -> int:
        request = Request(audio_s=audio_s, batch=batch, new_tokens=new_tokens)
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
        """What the device may have to give for so many bytes: an allocator takes whole segments."""
        return n_bytes + allocator_cache_bytes(self.card, Estimate.exact(n_bytes)).high

    @property
    def weights_bytes(self) -> int:
        """Of an ASR."""
        spec = self._own_spec()
        return whisper_weights_bytes(
            catalog.whisper(spec.model), backend=spec.backend, dtype=spec.dtype
        )

    @property
    def load_peak_bytes(self) -> int:
        """Of an ASR."""
        spec = self._own_spec()
        return whisper_load_peak_bytes(
            catalog.whisper(spec.model), backend=spec.backend, dtype=spec.dtype
        )

    def _own_spec(self) -> ModelSpec:
        if self.spec is None:
            raise RuntimeError("a model of another server takes no memory here")
        return self.spec

    def batch_bytes(self, jobs: list[InferenceJob]) -> int:
        """As if all were as long as the longest, to which they are padded."""
        return self.bytes_of(
            audio_s=max(job.params.audio.seconds for job in jobs),
            batch=len(jobs),
            new_tokens=max(job.max_new_tokens for job in jobs),
        )

    def fits(self, jobs: list[InferenceJob]) -> bool:
        return self.batch_bytes(jobs) <= self.budget.n_bytes

    def tokens(self, audio_s: float, asked: int | None) -> int:
        """Most tokens of a text: those asked for, else as many as a transcript of this length may
        have, which the ASR writes window by window and the LLM in one go."""
        if asked is not None:
            return asked
        windows = Request(audio_s=audio_s).windows if self.role == "llm" else 1
        return TRANSCRIPT_TOKENS_PER_WINDOW * windows

    def check(self, kind: Kind, audio_s: float, *, asked_tokens: int | None = None) -> None:
        """`ApiError` with the longest audio that would be served, or with what another program
        holds of the memory for it."""
        limit_s, why = self._own_limit(kind)
        self.budget.refresh()
        if audio_s <= limit_s and self._has_room(audio_s, asked_tokens):
            return
        longest_s = min(limit_s, self._longest_in_memory_s(limit_s, asked_tokens))
        if audio_s <= limit_s:
            n_bytes = self._audio_bytes(audio_s, asked_tokens)
            taken = self.budget.taken_by_others(n_bytes, longest_s=longest_s)
            if taken is not None:
                raise taken
        if longest_s < limit_s:
            why = "the memory that is free"
        raise too_long(audio_s, longest_s, why)

    def _own_limit(self, kind: Kind) -> tuple[float, str]:
        limits = [(self.max_audio_s, "the server")]
        if self.role == "llm" and kind == "answer":
            limits.append((catalog.VOXTRAL_MAX_ANSWER_S, "Voxtral"))
        elif self.role == "llm":
            limits.append((catalog.VOXTRAL_MAX_TRANSCRIBE_S, "Voxtral"))
        return min(limits)

    def _has_room(self, audio_s: float, asked_tokens: int | None) -> bool:
        return self._audio_bytes(audio_s, asked_tokens) <= self.budget.n_bytes

    def _audio_bytes(self, audio_s: float, asked_tokens: int | None) -> int:
        tokens = self.tokens(audio_s, asked_tokens)
        return self.bytes_of(audio_s=audio_s, new_tokens=tokens)

    def _longest_in_memory_s(self, limit_s: float, asked_tokens: int | None) -> float:
        """In whole windows; 0 where not even one fits."""
        return catalog.WINDOW_S * largest_fitting(
            lambda n: self._has_room(n * catalog.WINDOW_S, asked_tokens),
            most=max(1, math.ceil(limit_s / catalog.WINDOW_S)),
        )
