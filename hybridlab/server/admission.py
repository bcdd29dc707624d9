"""What fits: predicted by the planner, against the memory that the device has free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.catalog import Card
from hybridlab.models.base import TenantSpec
from hybridlab.planner import (
    Request,
    voxtral_request_bytes,
    whisper_load_peak_bytes,
    whisper_request_bytes,
    whisper_weights_bytes,
)
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.inverse import largest_fitting
from hybridlab.planner.pair import slack_bytes
from hybridlab.server.jobs import Job, Kind
from hybridlab.server.refusals import crowded_out, too_long
from hybridlab.server.room import Room

#: As many as a tenant of the lab writes by default.
TRANSCRIPT_TOKENS_PER_WINDOW = 224


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What one tenant's calls take above its weights, in bytes, and the longest audio for it.
    `swapped`: a Whisper whose weights come in with a call and count as part of it."""

    spec: TenantSpec
    analyst: bool
    card: Card
    room: Room
    max_audio_s: float
    swapped: bool = False

    def bytes_of(self, *, audio_s: float, batch: int = 1, new_tokens: int = 200) -> int:
        request = Request(audio_s=audio_s, batch=batch, new_tokens=new_tokens)
        return self._request_bytes(request) + (self.weights_bytes if self.swapped else 0)

    def _request_bytes(self, request: Request) -> int:
        if self.analyst:
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
        return n_bytes + slack_bytes(self.card, Estimate.exact(n_bytes)).high

    @property
    def weights_bytes(self) -> int:
        """Of a Whisper."""
        spec = self.spec
        return whisper_weights_bytes(
            catalog.whisper(spec.model), backend=spec.backend, dtype=spec.dtype
        )

    @property
    def load_peak_bytes(self) -> int:
        """Of a Whisper."""
        spec = self.spec
        return whisper_load_peak_bytes(
            catalog.whisper(spec.model), backend=spec.backend, dtype=spec.dtype
        )

    def batch_bytes(self, jobs: list[Job]) -> int:
        """As if all were as long as the longest, to which they are padded."""
        return self.bytes_of(
            audio_s=max(job.sound.seconds for job in jobs),
            batch=len(jobs),
            new_tokens=max(job.max_new_tokens for job in jobs),
        )

    def fits(self, jobs: list[Job]) -> bool:
        return self.batch_bytes(jobs) <= self.room.n_bytes

    def tokens(self, audio_s: float, asked: int | None) -> int:
        """Most tokens of a text: those asked for, else what a transcript of so much speech may
        have, which Whisper writes window by window and Voxtral in one go."""
        if asked is not None:
            return asked
        windows = Request(audio_s=audio_s).windows if self.analyst else 1
        return TRANSCRIPT_TOKENS_PER_WINDOW * windows

    def check(self, kind: Kind, audio_s: float, *, asked_tokens: int | None = None) -> None:
        """`RefusalError` with the longest audio that would be served, or with who else holds the
        memory for it."""
        most_s, why = self._own_limit(kind)
        self.room.look()
        if audio_s <= most_s and self._has_room(audio_s, asked_tokens):
            return
        longest_s = min(most_s, self._longest_in_memory_s(most_s, asked_tokens))
        if audio_s <= most_s:
            crowd = self.room.crowded_by(self._audio_bytes(audio_s, asked_tokens))
            if crowd is not None:
                raise crowded_out(crowd.n_bytes, crowd.of, longest_s=longest_s)
        if longest_s < most_s:
            why = "the memory that is free"
        raise too_long(audio_s, longest_s, why)

    def _own_limit(self, kind: Kind) -> tuple[float, str]:
        limits = [(self.max_audio_s, "the server")]
        if self.analyst and kind == "answer":
            limits.append((catalog.VOXTRAL_MAX_ANSWER_S, "Voxtral"))
        elif self.analyst:
            limits.append((catalog.VOXTRAL_MAX_TRANSCRIBE_S, "Voxtral"))
        return min(limits)

    def _has_room(self, audio_s: float, asked_tokens: int | None) -> bool:
        return self._audio_bytes(audio_s, asked_tokens) <= self.room.n_bytes

    def _audio_bytes(self, audio_s: float, asked_tokens: int | None) -> int:
        tokens = self.tokens(audio_s, asked_tokens)
        return self.bytes_of(audio_s=audio_s, new_tokens=tokens)

    def _longest_in_memory_s(self, most_s: float, asked_tokens: int | None) -> float:
        """In whole windows; 0 where not even one fits."""
        return catalog.WINDOW_S * largest_fitting(
            lambda n: self._has_room(n * catalog.WINDOW_S, asked_tokens),
            most=max(1, math.ceil(most_s / catalog.WINDOW_S)),
        )
