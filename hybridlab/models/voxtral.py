"""Voxtral through transformers: transcription, and answers to questions about the audio."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.errors import AudioError
from hybridlab.models.attention import (
    check_attention,
    check_card,
    kernels_of,
    pinned_attention,
)
from hybridlab.models.attention_kernels import KernelRecorder
from hybridlab.models.base import AudioLanguageModel, GenerationResult, PrefilledAudio, TokenUsage
from hybridlab.models.greedy_decoding import DecodeState, GreedyDecoder
from hybridlab.models.local_model import TransformersModel
from hybridlab.models.processors import TEKKEN_CONTROL_TOKENS, voxtral_processor
from hybridlab.models.source import hub_id
from hybridlab.models.text_streaming import StreamDetokenizer
from hybridlab.models.transcription import DEFAULT_OPTIONS, FinishReason, TranscribeOptions
from hybridlab.models.weights import computing_dtype, voxtral_config

#: Control tokens of Voxtral's tokenizer: the end of an instruction, and the wish for a transcript.
INST_END, TRANSCRIBE = 4, 34


class VoxtralTransformers(TransformersModel, AudioLanguageModel):
    """Greedy in both jobs, so that texts can be compared (the model card suggests temperature 0.2
    for questions)."""

    architecture = "VoxtralForConditionalGeneration"
    _loop: GreedyDecoder

    def _build(self) -> Any:
        check_card(self.spec.attention, self.spec.card)
        check_attention(
            self.spec.attention,
            self.device,
            model=catalog.voxtral(self.spec.model),
            dtype=computing_dtype(self.spec.dtype),
        )
        model = super()._build()
        self._loop = GreedyDecoder(model, may_end=self.spec.has_text)
        if self.spec.has_text and self.device.keeps_times:  # else there are no values to look at
            self._look_at_first_logits(model.lm_head)
        return model

    def _look_at_first_logits(self, head: nn.Module) -> None:
        """Note in `logits_finite` what the head gives once: the likeliest of numbers that have
        overflowed is a token without a word, so that texts would be empty without a reason."""

        def look(_: nn.Module, __: Any, logits: torch.Tensor) -> None:
            watching.remove()
            self.logits_finite = bool(torch.isfinite(logits).all())

        watching = head.register_forward_hook(look)

    def _config(self) -> Any:
        return voxtral_config(catalog.voxtral(self.spec.model))

    def _make_processor(self) -> Any:
        return voxtral_processor(vocab_size=catalog.voxtral(self.spec.model).text.vocab_size)

    def _load_processor(self, folder: Path) -> Any:
        from transformers import VoxtralProcessor

        return VoxtralProcessor.from_pretrained(folder)

    def _watched(self) -> Mapping[str, nn.Module]:
        parts, head = self._model.model, self._model.lm_head
        return {"encoder": parts.audio_tower, "decoder": parts.language_model, "head": head}

    def unload(self) -> None:
        self._loop = None  # type: ignore[assignment]
        super().unload()

    def transcribe(
        self, batch: Sequence[Samples], options: TranscribeOptions = DEFAULT_OPTIONS
    ) -> list[GenerationResult]:
        _check_length(batch, catalog.VOXTRAL_MAX_TRANSCRIBE_S, "transcription")
        language = catalog.language_for(self.spec.model, options.language)
        with self._probe.call():
            inputs = self._transcription(batch, language)
            longest_s = max(samples.size for samples in batch) / catalog.SAMPLE_RATE_HZ
            most = options.max_new_tokens or catalog.transcript_tokens(longest_s)
            return self._generate(inputs, most, beams=options.beams)

    def _transcription(self, batch: Sequence[Samples], language: str) -> Any:
        return self._processor.apply_transcription_request(
            audio=list(batch),
            model_id=hub_id("mini-3b"),
            language=language or None,
            sampling_rate=catalog.SAMPLE_RATE_HZ,
            format=["WAV"] * len(batch),
        )

    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        _check_length(batch, catalog.VOXTRAL_MAX_ANSWER_S, "a question")
        with self._probe.call():
            conversations = [
                [{"role": "user", "content": [_audio(samples), {"type": "text", "text": question}]}]
                for samples, question in zip(batch, questions, strict=True)
            ]
            inputs = self._processor.apply_chat_template(conversations)
            return self._generate(inputs, max_new_tokens)

    def prefill(self, samples: Samples) -> PrefilledAudio:
        return _VoxtralPrefill(self, samples)

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """Attention inside is computed as the spec says; which kernel the first request got is kept
        in `attention_kernel`."""
        with kernels_of(self.spec.card), pinned_attention(self.spec.attention):
            if self.attention_kernel is not None:
                yield
                return
            with KernelRecorder() as recorder:
                yield
            self.attention_kernel = " + ".join(recorder.seen) or None

    @torch.inference_mode()
    def _generate(
        self, inputs: Any, max_new_tokens: int, *, beams: int = 1
    ) -> list[GenerationResult]:
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        inputs = inputs.to(self.device.torch_name, dtype=self._model.dtype)
        with self._attention():
            if self.spec.decoding == "loop" and beams == 1:
                heading = self._loop.prefill(inputs)
                rows = self._loop.say(heading, max_new_tokens, self._on_step(len(asked)))
            else:
                rows = self._library_rows(inputs, max_new_tokens, beams)
        return [
            self._text(row, count, max_new_tokens) for row, count in zip(rows, asked, strict=True)
        ]

    def _on_step(self, rows: int) -> Callable[[list[int]], bool] | None:
        """None if no token callback is set."""
        if self.on_text is None:
            return None
        return StreamDetokenizer(
            rows,
            self.on_text,
            decode=self._processor.tokenizer.decode,
            ends=self._loop.ends.tolist() if self.spec.has_text else (),
            first_word=TEKKEN_CONTROL_TOKENS,
        ).step

    def _library_rows(self, inputs: Any, max_new_tokens: int, beams: int) -> list[list[int]]:
        options: dict[str, Any] = {}
        if not self.spec.has_text:
            options["min_new_tokens"] = max_new_tokens
        if self.spec.decoding == "static":
            options["cache_implementation"] = "static"
            # on a card transformers would compile with it, which no event of a phase survives
            options["disable_compile"] = True
        output = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=beams,
            max_new_tokens=max_new_tokens,
            **options,
        )
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._loop.cut(row) for row in rows]

    def _text(self, row: list[int], prompt_tokens: int, max_new_tokens: int) -> GenerationResult:
        """row: what was decoded before the end."""
        tokens = tuple(token for token in row if token >= TEKKEN_CONTROL_TOKENS)
        text = self._processor.tokenizer.decode(tokens).strip() if tokens else ""
        ended = len(row) < max_new_tokens
        # random weights do the work that they are given
        finish: FinishReason = "stop" if ended or not self.spec.has_text else "length"
        usage = TokenUsage(prompt_tokens, len(row) + ended)
        return GenerationResult(text, tokens, finish, usage=usage)


class _VoxtralPrefill(PrefilledAudio):
    """`<s>[INST][BEGIN_AUDIO][AUDIO]xN`, with which transcription and questions both begin, encoded
    and prefilled; every job continues from there and is then forgotten."""

    def __init__(self, model: VoxtralTransformers, samples: Samples) -> None:
        _check_length([samples], catalog.VOXTRAL_MAX_TRANSCRIBE_S, "transcription")
        self._model = model
        self._audio_s = samples.size / catalog.SAMPLE_RATE_HZ
        with model._probe.call():
            inputs = model._transcription([samples], "")
            audio = (inputs["input_ids"][0] == model._model.config.audio_token_id).nonzero()
            self._length = int(audio[-1]) + 1
            for name in ("input_ids", "attention_mask"):
                inputs[name] = inputs[name][:, : self._length]
            inputs = inputs.to(model.device.torch_name, dtype=model._model.dtype)
            with torch.inference_mode(), model._attention():
                self._heading: DecodeState = model._loop.prefill(inputs)

    def transcribe(self, options: TranscribeOptions = DEFAULT_OPTIONS) -> GenerationResult:
        language = catalog.language_for(self._model.spec.model, options.language)
        spoken = self._ids(f"lang:{language}") if language else []
        most = options.max_new_tokens or catalog.transcript_tokens(self._audio_s)
        return self._continue([INST_END, *spoken, TRANSCRIBE], most)

    def answer(self, question: str, *, max_new_tokens: int = 200) -> GenerationResult:
        return self._continue([*self._ids(question), INST_END], max_new_tokens)

    def _ids(self, text: str) -> list[int]:
        return list(self._model._processor.tokenizer.encode(text, add_special_tokens=False))

    @torch.inference_mode()
    def _continue(self, prompt: list[int], max_new_tokens: int) -> GenerationResult:
        model, loop = self._model, self._model._loop
        with model._probe.call(), model._attention():
            loop.rewind(self._heading, self._length)
            loop.extend(self._heading, torch.tensor([prompt], device=model.device.torch_name))
            (row,) = loop.say(self._heading, max_new_tokens)
        return model._text(row, self._length + len(prompt), max_new_tokens)


def _audio(samples: Samples) -> dict[str, str]:
    """An audio chunk of a chat message; WAV as the transcription request writes it. Without the
    prefix the library would first look for a file of that name."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, catalog.SAMPLE_RATE_HZ, format="WAV")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "audio", "base64": f"data:audio/wav;base64,{encoded}"}


def _check_length(batch: Sequence[Samples], longest_s: float, job: str) -> None:
    for samples in batch:
        seconds = samples.size / catalog.SAMPLE_RATE_HZ
        if seconds > longest_s:
            raise AudioError(
                f"an audio of {seconds / 60:.1f} min is too long for {job}: Voxtral takes "
                f"{longest_s / 60:.0f} min; cut it into shorter files"
            )
