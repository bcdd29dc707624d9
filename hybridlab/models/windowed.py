"""Whispers: clips of any length are cut into windows, and the windows' texts joined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from hybridlab.audio import Samples, windows
from hybridlab.models.base import GenerationResult, SpeechRecognizer


class WindowedRecognizer(SpeechRecognizer):
    """Transcribes windows of at most 30 s."""

    def transcribe(
        self,
        batch: Sequence[Samples],
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[GenerationResult]:
        pieces = [windows(samples) for samples in batch]
        cut = [piece for clip in pieces for piece in clip]
        rows = iter(self._transcribe_windows(cut, language, max_new_tokens, beams))
        return [_joined([next(rows) for _ in clip]) for clip in pieces]

    @abstractmethod
    def _transcribe_windows(
        self, pieces: list[Samples], language: str, max_new_tokens: int, beams: int
    ) -> list[GenerationResult]:
        """One text for each window."""


def _joined(rows: list[GenerationResult]) -> GenerationResult:
    """Texts of a clip's windows as its text."""
    text = " ".join(row.text for row in rows if row.text)
    return GenerationResult(text, tuple(token for row in rows for token in row.tokens))
