"""Whisper through openai-whisper, its weights kept as its users keep them: in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.errors import WeightsError
from hybridlab.models.local_model import LocalModel
from hybridlab.models.passes import Pass, begins_segment, drawn_alike
from hybridlab.models.processors import hf_to_openai_state_dict
from hybridlab.models.source import folder_of, weight_files
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.weights import empty_weights_on, fill_random, one_line_errors
from hybridlab.models.windowed import WindowedRecognizer

if TYPE_CHECKING:
    from whisper.timing import WordTiming

#: Silence behind a window while its features are computed, at least what a frame reaches ahead.
SILENT_HOPS = 5


class Encoded(NamedTuple):
    """Windows of one batch: log-mel features, (n, mel_bins, 3000), and the encoder's output, (n,
    1500, d_model)."""

    mel: Tensor
    heard: Tensor


class WhisperOpenai(LocalModel, WindowedRecognizer):
    """All windows of a call run as one batch, with beams one after the other; padded with zeros in
    the log-mel domain, as `whisper.transcribe` does."""

    def _build(self) -> nn.Module:
        build: Callable[[], nn.Module] = {"random": self._random, "hub": self._released}.get(
            self.spec.weights, self._converted
        )
        model = build()
        return model.to(self.device.torch_name).eval()

    def _watched(self) -> Mapping[str, nn.Module]:
        return {"encoder": self._model.encoder, "decoder": self._model.decoder}

    def _released(self) -> nn.Module:
        """openai-whisper's own checkpoint. In float32 as `load_model(device=...)` loads it, the
        double copy on the GPU included unless staged; float16 is cast on the host first."""
        import whisper

        (file,) = weight_files(self.spec)
        whole = self.spec.dtype == "float32"
        stop = self.first_stop.torch_name if whole else "cpu"
        with one_line_errors(self.spec):
            # by its path: by its name the library would first sum the whole file
            model: Any = whisper.load_model(str(file), device=stop)
        self._know_alignment(model)
        return model if whole else half_with_float_norms(model)

    def _know_alignment(self, model: Any) -> None:
        """Which heads tell the times of words, where that was published."""
        import whisper

        if (heads := whisper._ALIGNMENT_HEADS.get(self.spec.model)) is not None:
            model.set_alignment_heads(heads)

    def _converted(self) -> nn.Module:
        """A folder in hub format, its tensors renamed."""
        from safetensors.torch import load_file

        folder = folder_of(self.spec)
        state: dict[str, Tensor] = {}
        with one_line_errors(self.spec):
            for file in weight_files(self.spec):
                state |= load_file(file)
        with empty_weights_on("cpu"):
            model: Any = self._architecture()
        missing, unexpected = model.load_state_dict(hf_to_openai_state_dict(state), strict=False)
        # the encoder's positions are a computed buffer in one library and stored in the other
        if set(missing) - {"encoder.positional_embedding"} or unexpected:
            raise WeightsError(f"{folder} does not hold a Whisper: {[*missing, *unexpected][:3]}")
        self._know_alignment(model)
        return half_with_float_norms(model) if self.spec.dtype == "float16" else model

    def _random(self) -> nn.Module:
        """As `_released` asks the device's allocator: the float16 checkpoint beside the float32
        model unless staged, or what was cast on the host. No file and no copy on the host stand
        behind it; where the host is the device a second copy would only take time."""
        with empty_weights_on("cpu"):
            model = self._architecture()
        _apply(model, lambda tensor: _placed(tensor, "meta") if _is_weight(tensor) else tensor)
        checkpoint: list[Tensor] = []
        if self.spec.dtype == "float16":
            half_with_float_norms(model)
        elif not self.first_stop.is_host:
            checkpoint = [
                torch.empty(tensor.shape, dtype=torch.float16, device=self.device.torch_name)
                for tensor in model.state_dict().values()
            ]
        _apply(model, lambda tensor: _placed(tensor, self.first_stop.torch_name))
        del checkpoint
        fill_random(model, seed=self.spec.seed)
        return model

    def _architecture(self) -> nn.Module:
        from whisper.model import ModelDimensions, Whisper

        known = catalog.whisper(self.spec.model)
        encoder = known.encoder
        model: nn.Module = Whisper(
            ModelDimensions(
                n_mels=encoder.mel_bins,
                n_audio_ctx=encoder.positions,
                n_audio_state=encoder.d_model,
                n_audio_head=encoder.heads,
                n_audio_layer=encoder.layers,
                n_vocab=known.vocab_size,
                n_text_ctx=catalog.WHISPER_MAX_TARGET_POSITIONS,
                n_text_state=encoder.d_model,
                n_text_head=encoder.heads,
                n_text_layer=known.decoder_layers,
            )
        )
        return model

    def unload(self) -> None:
        from whisper.audio import mel_filters

        mel_filters.cache_clear()  # the library keeps them on the device for good
        super().unload()

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._probe.call(), torch.inference_mode():
            yield

    def _encode(self, pieces: list[Samples], *, beams: int = 1) -> Encoded:
        """One window after the other for beams, which the library has of one window at a time, and
        on a host, where it keeps the cores busy: the buffers of a whole batch are mapped anew at
        every layer, and the page faults took a tenth of a call's time beside the memory."""
        mel = torch.stack([self.mel(piece) for piece in pieces])
        if not self.device.is_host:
            mel = mel.half()
            if beams == 1:
                return Encoded(mel, self._model.encoder(mel))
        return Encoded(mel, torch.cat([self._model.encoder(window[None]) for window in mel]))

    def _detect(self, encoded: Encoded, row: int) -> str:
        _, (likely,) = self._model.detect_language(encoded.heard[row][None], self._tokenizer)
        return str(max(likely, key=likely.__getitem__))

    def _decode(
        self,
        encoded: Encoded,
        rows: list[int],
        languages: list[str],
        options: TranscribeOptions,
        *,
        ends: list[int] | None,
    ) -> list[Pass]:
        from whisper.decoding import DecodingTask

        end_of = dict(zip(rows, ends or [], strict=ends is not None))
        found: dict[int, Pass] = {}
        for language in dict.fromkeys(languages):
            own = [row for row, of in zip(rows, languages, strict=True) if of == language]
            asked = self._options(language, options, timestamps=ends is not None)
            # beams share the encoder's output in the library, which has it for one window only
            at_once = len(own) if options.beams == 1 else 1
            for first in range(0, len(own), at_once):
                some = own[first : first + at_once]
                heard = encoded.heard if len(some) == len(encoded.heard) else encoded.heard[some]
                task = DecodingTask(self._model, asked)
                if ends is not None:
                    limits = [end_of[row] for row in some for _ in range(options.beams)]
                    task.logit_filters.append(self._goes_on(limits, task.sample_begin))
                with drawn_alike(heard.device, options.temperature):
                    results = task.run(heard)
                for row, result in zip(some, results, strict=True):
                    found[row] = Pass(
                        tuple(result.tokens),
                        len(result.tokens) < asked.sample_len,
                        options.temperature,
                        float(result.avg_logprob),
                        float(result.no_speech_prob),
                    )
        return [found[row] for row in rows]

    def _goes_on(self, ends: list[int], begin: int) -> Any:
        """A filter of openai-whisper's that keeps rows from ending where they begin a segment."""
        from whisper.decoding import LogitFilter

        first, end_of_text = self._first_timestamp, self._tokenizer.eot

        class GoesOn(LogitFilter):  # type: ignore[misc]
            def apply(self, logits: Tensor, tokens: Tensor) -> None:
                for row, (own, end) in enumerate(
                    zip(tokens[:, begin:].tolist(), ends, strict=True)
                ):
                    if begins_segment(own, first, end):
                        logits[row, end_of_text] = -torch.inf

        return GoesOn()

    def _timings(
        self, encoded: Encoded, row: int, tokens: list[int], language: str, seconds: float
    ) -> list[WordTiming]:
        from whisper.audio import FRAMES_PER_SECOND
        from whisper.timing import find_alignment

        frames = round(seconds * FRAMES_PER_SECOND)
        tokenizer = self._tokenizer_of(language)
        found: list[WordTiming] = find_alignment(
            self._model, tokenizer, tokens, encoded.mel[row], frames
        )
        return found

    def mel(self, samples: Samples) -> Tensor:
        """(mel_bins, 3000), zero after the audio's own frames. `whisper.transcribe` appends 30 s of
        silence and cuts their frames off again; a frame reaches one and a quarter hops ahead, so
        that a few hops give the same values, bit for bit."""
        from whisper.audio import HOP_LENGTH, N_FRAMES, log_mel_spectrogram, pad_or_trim

        mel = log_mel_spectrogram(
            torch.from_numpy(samples),
            self._model.dims.n_mels,
            padding=SILENT_HOPS * HOP_LENGTH,
            device=self.device.torch_name,
        )
        window: Tensor = pad_or_trim(mel[:, :-SILENT_HOPS], N_FRAMES)
        return window

    def _options(self, language: str, options: TranscribeOptions, *, timestamps: bool) -> Any:
        from whisper.decoding import DecodingOptions

        suppress = "-1"
        if not self.spec.has_text:  # fixed work: never end early
            suppress = f"-1,{self._tokenizer.eot}"
        return DecodingOptions(
            task=options.task,
            language=language,
            prompt=options.prompt.strip() or None,
            temperature=options.temperature,
            without_timestamps=not timestamps,
            suppress_tokens=suppress,
            sample_len=options.max_new_tokens,
            beam_size=options.beams if options.beams > 1 else None,
            fp16=not self.device.is_host,  # its CPU path is float32 only
        )


def _apply(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change every tensor in the order in which `Module.to` moves them."""
    model._apply(change)  # type: ignore[no-untyped-call]


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _placed(tensor: Tensor, device: str) -> Tensor:
    """This tensor on `device`, without values where it has none yet."""
    return torch.empty_like(tensor, device=device) if _is_weight(tensor) else tensor.to(device)


def half_with_float_norms(model: nn.Module) -> nn.Module:
    """float16 weights that openai-whisper can run: its LayerNorm computes in float32."""
    model.half()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
    return model
