"""Whisper through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hybridlab import catalog
from hybridlab.audio import Samples, log_mel
from hybridlab.models.local_model import TransformersModel
from hybridlab.models.passes import Pass, begins_segment, drawn_alike
from hybridlab.models.processors import (
    alignment_heads,
    load_whisper_processor,
    whisper_generation_config,
    whisper_processor,
)
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.weights import whisper_config
from hybridlab.models.windowed import WindowedRecognizer

if TYPE_CHECKING:
    from whisper.timing import WordTiming


class WhisperTransformers(TransformersModel, WindowedRecognizer):
    """All windows of a call run as one batch; padded with silence to 30 s by the extractor."""

    architecture = "WhisperForConditionalGeneration"

    def _config(self) -> Any:
        return whisper_config(catalog.whisper(self.spec.model))

    def _make_processor(self) -> Any:
        known = catalog.whisper(self.spec.model)
        return whisper_processor(vocab_size=known.vocab_size, num_mel_bins=known.encoder.mel_bins)

    def _load_processor(self, folder: Path) -> Any:
        return load_whisper_processor(folder, catalog.whisper(self.spec.model))

    def _build(self) -> Any:
        model = super()._build()
        if self.spec.weights == "random":
            vocab_size = catalog.whisper(self.spec.model).vocab_size
            config = whisper_generation_config(vocab_size=vocab_size)
            # a timestamp would be taken for the place where a window goes on, for more work
            stamps = range(self._first_timestamp, vocab_size)
            config.suppress_tokens = [*config.suppress_tokens, *stamps]
            model.generation_config = config
        return model

    def _watched(self) -> Mapping[str, nn.Module]:
        return {"encoder": self._model.model.encoder, "decoder": self._model.model.decoder}

    def save(self, folder: Path) -> None:
        """Write the loaded model and its processor as a folder in hub format."""
        self._model.save_pretrained(folder)
        # one by one, as the released folders are: the processor alone would write another file
        self._processor.feature_extractor.save_pretrained(folder)
        self._processor.tokenizer.save_pretrained(folder)

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._probe.call(), torch.inference_mode():
            yield

    def _features(self, pieces: list[Samples]) -> Any:
        """Padded with silence to 30 s."""
        inputs = self._processor.feature_extractor(
            pieces,
            sampling_rate=catalog.SAMPLE_RATE_HZ,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device.torch_name)
        inputs["input_features"] = inputs.input_features.to(self._model.dtype)
        return inputs

    def _pass_over(
        self, pieces: list[Samples], options: TranscribeOptions
    ) -> tuple[list[Pass], list[str]]:
        """As whoever calls `generate` has it, memory included."""
        if options.prompt or options.temperature or not options.language:
            return super()._pass_over(pieces, options)
        inputs, most = self._features(pieces), options.max_new_tokens or 0
        asked: dict[str, Any] = {} if self.spec.has_text else {"min_new_tokens": most}
        if catalog.whisper(self.spec.model).multilingual:
            asked |= {"language": options.language, "task": options.task}
        output = self._model.generate(
            inputs.input_features,
            attention_mask=inputs.attention_mask,
            return_timestamps=False,
            do_sample=False,
            num_beams=options.beams,
            max_new_tokens=most,
            **asked,
        )
        return [self._said(row, most) for row in output.tolist()], [options.language] * len(pieces)

    def _said(
        self,
        row: list[int],
        most: int,
        temperature: float = 0.0,
        avg_logprob: float | None = None,
        no_speech_prob: float | None = None,
    ) -> Pass:
        """row: what was decoded, padded with ends."""
        end = self._model.generation_config.eos_token_id
        tokens = tuple(row[: row.index(end)] if end in row else row)
        return Pass(tokens, len(tokens) < most, temperature, avg_logprob, no_speech_prob)

    def _encode(self, pieces: list[Samples], *, beams: int = 1) -> Any:
        """Padded with zeros in the log-mel domain, as both other libraries pad, so that all hear
        the same; transformers by itself pads with silence."""
        bins = catalog.whisper(self.spec.model).encoder.mel_bins
        features = torch.zeros(len(pieces), bins, catalog.MEL_FRAMES_PER_WINDOW)
        for row, piece in zip(features, pieces, strict=True):
            heard = torch.from_numpy(log_mel(piece, mel_bins=bins))
            row[:, : heard.shape[1]] = heard
        return self._model.model.encoder(features.to(self.device.torch_name, self._model.dtype))

    def _detect(self, encoded: Any, row: int) -> str:
        config = self._model.generation_config
        (token,) = self._model.detect_language(
            encoder_outputs=self._rows(encoded, [row]), generation_config=config
        ).tolist()
        return str(next(name for name, own in config.lang_to_id.items() if own == token))[2:-2]

    @staticmethod
    def _rows(encoded: Any, rows: list[int]) -> Any:
        """In an object of their own: `generate` puts copies for beams into the one it is given."""
        from transformers.modeling_outputs import BaseModelOutput

        heard = encoded.last_hidden_state
        return BaseModelOutput(heard if len(rows) == len(heard) else heard[rows])

    def _decode(
        self,
        encoded: Any,
        rows: list[int],
        languages: list[str],
        options: TranscribeOptions,
        *,
        ends: list[int] | None,
    ) -> list[Pass]:
        """One pass of transformers' plain `generate`, with Whisper's own rules for timestamps:
        Whisper's `generate` would add a loop over windows of its own."""
        from transformers import GenerationConfig, GenerationMixin
        from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

        prompts = torch.tensor(
            [
                self._prompt(language, options, timestamps=ends is not None)
                for language in languages
            ],
            device=self.device.torch_name,
        )
        heard, most = self._rows(encoded, rows), options.max_new_tokens or 0
        begin = prompts.shape[1]
        # openai-whisper's, whatever a folder says
        rules = whisper_generation_config(vocab_size=catalog.whisper(self.spec.model).vocab_size)
        drawn: dict[str, Any] = {"do_sample": False}
        if options.temperature > 0:
            drawn = {"do_sample": True, "temperature": options.temperature, "top_k": 0}
        config = GenerationConfig(
            bos_token_id=rules.bos_token_id,
            eos_token_id=rules.eos_token_id,
            pad_token_id=rules.pad_token_id,
            # counted with the prompt
            max_length=begin + most,
            min_length=0 if self.spec.has_text else begin + most,
            suppress_tokens=rules.suppress_tokens,
            begin_suppress_tokens=rules.begin_suppress_tokens,
            num_beams=options.beams,
            **drawn,
        )
        logprobs = Logprobs(begin, rules.eos_token_id)
        stamps: list[Any] = []
        if ends is not None:
            limits = [end for end in ends for _ in range(options.beams)]
            goes_on = GoesOn(begin, rules.eos_token_id, self._first_timestamp, limits)
            stamps = [WhisperTimeStampLogitsProcessor(rules, begin), goes_on]
        with (
            self._no_speech(prompts) as no_speech,
            drawn_alike(prompts.device, options.temperature),
        ):
            output = GenerationMixin.generate(
                self._model,
                encoder_outputs=heard,
                past_key_values=self._cache(heard, options.beams),
                decoder_input_ids=prompts,
                generation_config=config,
                logits_processor=[*stamps, logprobs],
            )
        said = output[:, begin:]
        average = (
            logprobs.average(said)
            if options.beams == 1
            else self._average(self._rows(encoded, rows), output, said)
        )
        return [
            self._said(
                row,
                most,
                temperature=options.temperature,
                avg_logprob=logprob,
                no_speech_prob=silence,
            )
            for row, logprob, silence in zip(
                said.tolist(), average, no_speech[:: options.beams], strict=True
            )
        ]

    def _cache(self, heard: Any, beams: int) -> Any:
        """An empty one, in which all beams of one window share its keys and values: a copy for each
        would take five times 245 MB of large-v3 in float16. None where nothing is shared."""
        from transformers import DynamicCache, EncoderDecoderCache

        states = heard.last_hidden_state
        if beams == 1 or len(states) > 1:
            return None
        shared = DynamicCache()
        shared.layers = [
            shared_by_beams(layer.encoder_attn, states, beams)
            for layer in self._model.model.decoder.layers
        ]
        return EncoderDecoderCache(DynamicCache(), shared)

    @contextmanager
    def _no_speech(self, prompts: Tensor) -> Iterator[list[float]]:
        """After the passes inside: of each row, beams counted, how probable it is that nothing is
        said, which stands at <|startoftranscript|> of the first pass."""
        known, found = self._tokenizer, list[float]()
        start = prompts[0].tolist().index(known.sot)

        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not found:
                logits = self._model.proj_out(output.last_hidden_state[:, start])
                found.extend(logits.float().softmax(dim=-1)[:, known.no_speech].tolist())

        hook = self._model.model.decoder.register_forward_hook(look)
        try:
            yield found
        finally:
            hook.remove()

    def _average(self, heard: Any, output: Tensor, said: Tensor) -> list[float]:
        """The mean log probability of each row's tokens, its end among them, in one more pass."""
        found = []
        for row, (ids, own) in enumerate(zip(output, said, strict=True)):
            logits = self._model(
                encoder_outputs=self._rows(heard, [row]),
                decoder_input_ids=ids[None, :-1],
                use_cache=False,
            ).logits[0, -len(own) :]
            likely = logits.float().log_softmax(dim=-1)
            end = self._model.generation_config.eos_token_id
            count = int((own != end).sum()) + int((own == end).any())
            found.append(float(likely.gather(1, own[:, None])[:count].mean()))
        return found

    def _timings(
        self, encoded: Any, row: int, tokens: list[int], language: str, seconds: float
    ) -> list[WordTiming]:
        """By the cross-attention of one pass over the tokens, as `return_timestamps="word"`."""
        from transformers.generation import GenerateEncoderDecoderOutput
        from whisper.audio import FRAMES_PER_SECOND
        from whisper.timing import WordTiming

        known = self._tokenizer_of(language)
        begin = [*known.sot_sequence, known.no_timestamps]
        ids = torch.tensor([[*begin, *tokens]], device=self.device.torch_name)
        kernel = self._model.config._attn_implementation
        self._model.set_attn_implementation("eager")  # no other keeps what is attended to
        try:
            output = self._model(
                encoder_outputs=self._rows(encoded, [row]),
                decoder_input_ids=ids,
                output_attentions=True,
                use_cache=False,
            )
        finally:
            self._model.set_attn_implementation(kernel)
        likely = output.logits[0, len(begin) - 1 : -1].float().softmax(dim=-1)
        given = likely.gather(1, ids[0, len(begin) :, None])[:, 0].tolist()
        found = GenerateEncoderDecoderOutput(
            sequences=ids, cross_attentions=(output.cross_attentions,)
        )
        times_s = self._model._extract_token_timestamps(
            found,
            alignment_heads(catalog.whisper(self.spec.model)),
            num_frames=round(seconds * FRAMES_PER_SECOND),
            # a token is said where the one before it attends to
            num_input_ids=len(begin) - 1,
        )[0, len(begin) - 1 :].tolist()
        timings, at = [], 0
        for word, own in zip(*known.split_to_word_tokens([*tokens, known.eot]), strict=True):
            end = min(at + len(own), len(tokens))
            if end > at:  # not the end's own
                probability = sum(given[at:end]) / (end - at)
                timings.append(WordTiming(word, own, times_s[at], times_s[end], probability))
            at = end
        return timings


def shared_by_beams(attention: Any, states: Tensor, beams: int) -> Any:
    """A layer of a cache with the keys and values of one window, (1, positions, width), as views
    for each beam; beams that change places find the same there."""
    from transformers.cache_utils import DynamicLayer

    def views(projection: nn.Module) -> Tensor:
        heads = projection(states).unflatten(-1, (attention.num_heads, attention.head_dim))
        own: Tensor = heads.transpose(1, 2)
        return own.expand(beams, -1, -1, -1)

    layer, keys = DynamicLayer(), views(attention.k_proj)
    layer.lazy_initialization(keys, keys)
    layer.keys, layer.values = keys, views(attention.v_proj)
    layer.reorder_cache = lambda beam_idx: None  # else each beam would get a copy
    return layer


class GoesOn:
    """A rule for logits that keeps rows from ending where they begin a segment."""

    def __init__(self, begin: int, end: int, first_timestamp: int, ends: list[int]) -> None:
        self._begin, self._end, self._first = begin, end, first_timestamp
        self._ends = ends

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        rows = zip(ids[:, self._begin :].tolist(), self._ends, strict=True)
        for row, (own, end) in enumerate(rows):
            if begins_segment(own, self._first, end):
                scores[row, self._end] = -torch.inf
        return scores


class Logprobs:
    """A rule for logits that changes none: it adds up the log probabilities of the tokens that were
    chosen, each row's end among them, without keeping the logits of every step."""

    def __init__(self, begin: int, end: int) -> None:
        self._begin, self._end = begin, end
        self._last: Tensor | None = None
        self._sum: Any = 0.0

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self._last is not None:
            self._add(ids[:, self._begin :])
        self._last = scores.float().log_softmax(dim=-1)
        return scores

    def _add(self, said: Tensor) -> None:
        assert self._last is not None
        chosen = self._last.gather(1, said[:, -1:])[:, 0]
        over = (said[:, :-1] == self._end).any(dim=1)
        self._sum = self._sum + chosen.masked_fill(over, 0.0)

    def average(self, said: Tensor) -> list[float]:
        """said: all that was decoded, (rows, tokens)."""
        self._add(said)
        own = (said != self._end).sum(dim=1)
        counted = own + 1  # as openai-whisper has it, also for a row that was cut
        average: list[float] = (self._sum / counted).tolist()
        return average
