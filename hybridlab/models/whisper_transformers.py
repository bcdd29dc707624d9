"""Whisper through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hybridlab import catalog
from hybridlab.audio import Samples, windows
from hybridlab.models.base import GenerationResult, SpeechRecognizer
from hybridlab.models.phase_hooks import PhaseProbe
from hybridlab.models.processors import (
    load_whisper_processor,
    whisper_generation_config,
    whisper_processor,
)
from hybridlab.models.source import check_source, folder_or_id
from hybridlab.models.weights import (
    one_line_errors,
    pretrained,
    random_transformers,
    whisper_config,
)


class WhisperTransformers(SpeechRecognizer):
    """All windows of a call run as one batch; padded with silence to 30 s by the extractor."""

    _model: Any = None
    _processor: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def module(self) -> Any:
        return self._model

    def load(self) -> None:
        from transformers import WhisperForConditionalGeneration

        check_source(self.spec)
        known = catalog.whisper(self.spec.model)
        if self.spec.weights == "random":
            with self._building_processor():
                self._processor = whisper_processor(
                    vocab_size=known.vocab_size, num_mel_bins=known.encoder.mel_bins
                )
            self._model = random_transformers(
                WhisperForConditionalGeneration,
                whisper_config(known),
                self.spec,
                self.first_stop.torch_name,
            )
            self._model.generation_config = whisper_generation_config(vocab_size=known.vocab_size)
        else:
            with one_line_errors(self.spec), self._building_processor():
                self._processor = load_whisper_processor(folder_or_id(self.spec), known)
            self._model = pretrained(WhisperForConditionalGeneration, self.spec, self.first_stop)
        if self.spec.load_path == "staged":
            self._model.to(self.device.torch_name)
        self._probe = PhaseProbe(
            self,
            encoder=self._model.model.encoder,
            decoder=self._model.model.decoder,
        )

    def unload(self) -> None:
        self._model = self._processor = self._probe = None  # type: ignore[assignment]
        self.device.release()

    def save(self, folder: Path) -> None:
        """Write the loaded model and its processor as a folder in hub format."""
        self._model.save_pretrained(folder)
        # one by one, as the released folders are: the processor alone would write another file
        self._processor.feature_extractor.save_pretrained(folder)
        self._processor.tokenizer.save_pretrained(folder)

    @torch.inference_mode()
    def transcribe(
        self,
        batch: Sequence[Samples],
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[GenerationResult]:
        pieces = [windows(samples) for samples in batch]
        with self._probe.call():
            inputs = self._processor.feature_extractor(
                [piece for clip in pieces for piece in clip],
                sampling_rate=catalog.SAMPLE_RATE_HZ,
                return_attention_mask=True,
                return_tensors="pt",
            ).to(self.device.torch_name)
            fixed = {} if self.spec.has_text else {"min_new_tokens": max_new_tokens}
            output = self._model.generate(
                inputs.input_features.to(self._model.dtype),
                attention_mask=inputs.attention_mask,
                language=language or None,
                task="transcribe",
                return_timestamps=False,
                do_sample=False,
                num_beams=beams,
                max_new_tokens=max_new_tokens,
                **fixed,
            )
            rows = [self._text(row) for row in output.tolist()]
        return _joined(rows, [len(clip) for clip in pieces])

    def _text(self, row: list[int]) -> GenerationResult:
        first_special = self._model.generation_config.eos_token_id
        tokens = tuple(token for token in row if token < first_special)
        return GenerationResult(
            self._processor.decode(tokens, skip_special_tokens=True).strip(), tokens
        )


def _joined(rows: list[GenerationResult], counts: list[int]) -> list[GenerationResult]:
    """Texts of windows as texts of clips."""
    texts, start = [], 0
    for count in counts:
        own = rows[start : start + count]
        start += count
        tokens = tuple(token for text in own for token in text.tokens)
        texts.append(GenerationResult(" ".join(text.text for text in own if text.text), tokens))
    return texts
