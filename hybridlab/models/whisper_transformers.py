"""Whisper through transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.models.base import GenerationResult, WindowedRecognizer
from hybridlab.models.local_model import TransformersModel
from hybridlab.models.processors import (
    load_whisper_processor,
    whisper_generation_config,
    whisper_processor,
)
from hybridlab.models.weights import whisper_config


class WhisperTransformers(TransformersModel, WindowedRecognizer):
    """All windows of a call run as one batch; padded with silence to 30 s by the extractor."""

    architecture = "WhisperForConditionalGeneration"

    def _config(self) -> Any:
        return whisper_config(catalog.whisper(self.spec.model))

    def _make_processor(self) -> Any:
        known = catalog.whisper(self.spec.model)
        return whisper_processor(vocab_size=known.vocab_size, num_mel_bins=known.encoder.mel_bins)

    def _load_processor(self, folder_or_id: str) -> Any:
        return load_whisper_processor(folder_or_id, catalog.whisper(self.spec.model))

    def _build(self) -> Any:
        model = super()._build()
        if self.spec.weights == "random":
            vocab_size = catalog.whisper(self.spec.model).vocab_size
            model.generation_config = whisper_generation_config(vocab_size=vocab_size)
        return model

    def _watched(self) -> Mapping[str, nn.Module]:
        return {"encoder": self._model.model.encoder, "decoder": self._model.model.decoder}

    def save(self, folder: Path) -> None:
        """Write the loaded model and its processor as a folder in hub format."""
        self._model.save_pretrained(folder)
        # one by one, as the released folders are: the processor alone would write another file
        self._processor.feature_extractor.save_pretrained(folder)
        self._processor.tokenizer.save_pretrained(folder)

    @torch.inference_mode()
    def _transcribe_windows(
        self, pieces: list[Samples], language: str, max_new_tokens: int, beams: int
    ) -> list[GenerationResult]:
        with self._probe.call():
            inputs = self._processor.feature_extractor(
                pieces,
                sampling_rate=catalog.SAMPLE_RATE_HZ,
                return_attention_mask=True,
                return_tensors="pt",
            ).to(self.device.torch_name)
            asked: dict[str, Any] = {}
            if catalog.whisper(self.spec.model).multilingual:
                asked = {"language": language or None, "task": "transcribe"}
            fixed = {} if self.spec.has_text else {"min_new_tokens": max_new_tokens}
            output = self._model.generate(
                inputs.input_features.to(self._model.dtype),
                attention_mask=inputs.attention_mask,
                return_timestamps=False,
                do_sample=False,
                num_beams=beams,
                max_new_tokens=max_new_tokens,
                **asked,
                **fixed,
            )
            return [self._text(row) for row in output.tolist()]

    def _text(self, row: list[int]) -> GenerationResult:
        first_special = self._model.generation_config.eos_token_id
        tokens = tuple(token for token in row if token < first_special)
        text = self._processor.decode(tokens, skip_special_tokens=True).strip()
        return GenerationResult(text, tokens)
