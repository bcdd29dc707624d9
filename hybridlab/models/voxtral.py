"""Voxtral through transformers: transcription, and answers to questions about the audio."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.errors import AudioError
from hybridlab.models.attention import (
    check_attention,
    check_card,
    kernels_of,
    pinned_attention,
)
from hybridlab.models.base import AudioLanguageModel, GenerationResult, PrefilledAudio, TokenUsage
from hybridlab.models.greedy_decoding import DecodeState, GreedyDecoder
from hybridlab.models.phase_hooks import PhaseProbe
from hybridlab.models.processors import TEKKEN_CONTROL_TOKENS, voxtral_processor
from hybridlab.models.source import check_source, folder_or_id, hub_id
from hybridlab.models.text_streaming import StreamDetokenizer
from hybridlab.models.weights import (
    computing_dtype,
    one_line_errors,
    pretrained,
    random_transformers,
    voxtral_config,
)

#: Control tokens of Voxtral's tokenizer: the end of an instruction, and the wish for a transcript.
INST_END, TRANSCRIBE = 4, 34


class VoxtralTransformers(AudioLanguageModel):
    """Greedy in both jobs, so that texts can be compared (the model card suggests temperature 0.2
    for questions)."""

    _model: Any = None
    _processor: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def module(self) -> Any:
        return self._model

    def load(self) -> None:
        from transformers import VoxtralForConditionalGeneration, VoxtralProcessor

        check_source(self.spec)
        check_card(self.spec.attention, self.spec.card)
        known = catalog.voxtral(self.spec.model)
        check_attention(
            self.spec.attention,
            self.device,
            model=known,
            dtype=computing_dtype(self.spec.dtype),
        )
        if self.spec.weights == "random":
            with self._building_processor():
                self._processor = voxtral_processor(vocab_size=known.text.vocab_size)
            self._model = random_transformers(
                VoxtralForConditionalGeneration,
                voxtral_config(known),
                self.spec,
                self.first_stop.torch_name,
            )
        else:
            with one_line_errors(self.spec), self._building_processor():
                self._processor = VoxtralProcessor.from_pretrained(folder_or_id(self.spec))
            self._model = pretrained(VoxtralForConditionalGeneration, self.spec, self.first_stop)
        if self.spec.load_path == "staged":
            self._model.to(self.device.torch_name)
        self._probe = PhaseProbe(
            self,
            encoder=self._model.model.audio_tower,
            decoder=self._model.model.language_model,
            head=self._model.lm_head,
        )
        self._loop = GreedyDecoder(self._model, may_end=self.spec.has_text)

    def unload(self) -> None:
        self._model = self._processor = self._probe = self._loop = None  # type: ignore[assignment]
        self.device.release()

    def transcribe(
        self,
        batch: Sequence[Samples],
        *,
        language: str = "en",
        max_new_tokens: int = 224,
        beams: int = 1,
    ) -> list[GenerationResult]:
        _check_length(batch, catalog.VOXTRAL_MAX_TRANSCRIBE_S, "transcription")
        with self._probe.call():
            inputs = self._transcription(batch, language)
            return self._generate(inputs, max_new_tokens, beams=beams)

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

    def hear(self, samples: Samples) -> PrefilledAudio:
        return _VoxtralHeard(self, samples)

    @torch.inference_mode()
    def _generate(
        self, inputs: Any, max_new_tokens: int, *, beams: int = 1
    ) -> list[GenerationResult]:
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        inputs = inputs.to(self.device.torch_name, dtype=self._model.dtype)
        teller = self._teller(len(asked)) if beams == 1 else None
        with kernels_of(self.spec.card), pinned_attention(self.spec.attention):
            if self.spec.decoding == "loop" and beams == 1:
                on_step = None if teller is None else teller.step
                rows = self._loop.say(self._loop.prefill(inputs), max_new_tokens, on_step)
            else:
                rows = self._library_rows(inputs, max_new_tokens, beams, teller)
        return [
            self._text(row, count, max_new_tokens) for row, count in zip(rows, asked, strict=True)
        ]

    def _teller(self, rows: int) -> StreamDetokenizer | None:
        """None where nobody listens."""
        if self.on_text is None:
            return None
        return StreamDetokenizer(
            rows,
            self.on_text,
            decode=self._processor.tokenizer.decode,
            ends=self._loop.ends.tolist() if self.spec.has_text else (),
            first_word=TEKKEN_CONTROL_TOKENS,
        )

    def _library_rows(
        self, inputs: Any, max_new_tokens: int, beams: int, teller: StreamDetokenizer | None
    ) -> list[list[int]]:
        options: dict[str, Any] = {}
        if teller is not None:
            options["streamer"] = _Streamer(teller)
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
        return GenerationResult(text, tokens, TokenUsage(prompt_tokens, len(row) + ended, ended))


class _Streamer:
    """What `generate` calls a streamer: given the prompt, then the token of each row."""

    def __init__(self, teller: StreamDetokenizer) -> None:
        self._teller = teller
        self._prompt = True

    def put(self, tokens: torch.Tensor) -> None:
        if not self._prompt:
            self._teller.step(tokens.tolist())
        self._prompt = False

    def end(self) -> None:
        """Nothing is held back here."""


class _VoxtralHeard(PrefilledAudio):
    """`<s>[INST][BEGIN_AUDIO][AUDIO]xN`, with which transcription and questions both begin, encoded
    and prefilled; every job continues from there and is then forgotten."""

    def __init__(self, tenant: VoxtralTransformers, samples: Samples) -> None:
        _check_length([samples], catalog.VOXTRAL_MAX_TRANSCRIBE_S, "transcription")
        self._tenant = tenant
        with tenant._probe.call():
            inputs = tenant._transcription([samples], "")
            audio = (inputs["input_ids"][0] == tenant._model.config.audio_token_id).nonzero()
            self._length = int(audio[-1]) + 1
            for name in ("input_ids", "attention_mask"):
                inputs[name] = inputs[name][:, : self._length]
            inputs = inputs.to(tenant.device.torch_name, dtype=tenant._model.dtype)
            with torch.inference_mode(), pinned_attention(tenant.spec.attention):
                self._heading: DecodeState = tenant._loop.prefill(inputs)

    def transcribe(self, *, language: str = "en", max_new_tokens: int = 224) -> GenerationResult:
        spoken = self._ids(f"lang:{language}") if language else []
        return self._continue([INST_END, *spoken, TRANSCRIBE], max_new_tokens)

    def answer(self, question: str, *, max_new_tokens: int = 200) -> GenerationResult:
        return self._continue([*self._ids(question), INST_END], max_new_tokens)

    def _ids(self, text: str) -> list[int]:
        return list(self._tenant._processor.tokenizer.encode(text, add_special_tokens=False))

    @torch.inference_mode()
    def _continue(self, prompt: list[int], max_new_tokens: int) -> GenerationResult:
        tenant, loop = self._tenant, self._tenant._loop
        with tenant._probe.call(), pinned_attention(tenant.spec.attention):
            loop.rewind(self._heading, self._length)
            loop.extend(self._heading, torch.tensor([prompt], device=tenant.device.torch_name))
            (row,) = loop.say(self._heading, max_new_tokens)
        return tenant._text(row, self._length + len(prompt), max_new_tokens)


def _audio(samples: Samples) -> dict[str, str]:
    """An audio chunk of a chat message; WAV as the transcription request writes it."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, catalog.SAMPLE_RATE_HZ, format="WAV")
    return {"type": "audio", "base64": base64.b64encode(buffer.getvalue()).decode()}


def _check_length(batch: Sequence[Samples], longest_s: float, job: str) -> None:
    for samples in batch:
        seconds = samples.size / catalog.SAMPLE_RATE_HZ
        if seconds > longest_s:
            raise AudioError(
                f"an audio of {seconds / 60:.1f} min is too long for {job}: Voxtral takes "
                f"{longest_s / 60:.0f} min; cut it into shorter files"
            )
