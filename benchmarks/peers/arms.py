"""The peers, and the lab's own ways beside them, over one pair of weights.

A peer is another Whisper in the place of the lab's, followed by plain `generate` of Voxtral, one
request after the other. Everything is served through the same `Strategy.serve`, so that all are
timed alike; the peers' models carry none of the lab's hooks. What stays resident is loaded once and
lent to all arms: a full-size Voxtral has room only once.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridlab import catalog
from hybridlab.audio import Samples, windows
from hybridlab.devices import CpuDevice, Device
from hybridlab.errors import UnavailableError
from hybridlab.experiments.placement import asr_spec
from hybridlab.models import GenerationResult, ModelSpec, SpeechRecognizer, make_asr
from hybridlab.models.base import resolve_dtype
from hybridlab.models.phase_hooks import PhaseProbe
from hybridlab.models.source import folder_of
from hybridlab.models.transcription import DEFAULT_OPTIONS, TranscribeOptions
from hybridlab.models.voxtral import VoxtralTransformers
from hybridlab.models.weights import torch_dtype
from hybridlab.models.whisper_openai import WhisperOpenai
from hybridlab.models.whisper_transformers import WhisperTransformers
from hybridlab.strategies import Strategy, make_strategy

BASELINE = "original"
OURS = (
    "sequential/plain",
    "solo/shared-prefix",
    "parallel/threads",
    "parallel/ctranslate2",
    "pipelined/prefetch",
    "swapping/single-buffer",
    "swapping/reload-cached",
)
#: What the arms that are not ours run.
PEERS = {
    BASELINE: "openai-whisper's model.transcribe, then Voxtral's model.generate",
    "transformers-pipeline": "transformers' pipeline for Whisper, then model.generate",
    "faster-whisper": "faster_whisper.WhisperModel, then model.generate",
    "accelerate-offload": "transformers' Whisper behind accelerate's cpu_offload_with_hook, in and "
    "out at each request, then model.generate",
}
#: An arm by name, nothing loaded yet.
Makers = dict[str, Callable[[], Strategy]]


@dataclass(frozen=True, kw_only=True)
class SavedSpec(ModelSpec):
    """Random weights that were saved as files: a reload reads them, their text still means
    nothing."""

    @property
    def has_text(self) -> bool:
        return False


def saved(spec: ModelSpec, device: Device, folder: Path) -> ModelSpec:
    """The Whisper of this spec as every library can read it: random weights become files, so that
    all arms have the same values."""
    if spec.weights != "random":
        return spec
    save(spec, device, folder)
    known = {"weights": "local", "path": str(folder), "asr_decoding": "plain"}
    return SavedSpec(**{**spec.__dict__, **known})


def save(spec: ModelSpec, device: Device, folder: Path) -> None:
    """The Whisper of this spec as a folder in hub format."""
    model = WhisperTransformers(replace(spec, backend="transformers"), device)
    model.load()
    model.save(folder)
    model.unload()


# ------------------------------------------------------------------------------- lent by one arm


class _Lent:
    """Loaded by the first arm that opens it, and kept for the others."""

    loaded: bool

    def load(self) -> None:
        if not self.loaded:
            super().load()  # type: ignore[misc]

    def unload(self) -> None:
        return None


class LentVoxtral(_Lent, VoxtralTransformers):
    pass


class LentWhisper(_Lent, WhisperOpenai):
    pass


class Unwatched:
    """In the place of a `PhaseProbe`: nobody listens."""

    def call(self) -> AbstractContextManager[None]:
        return nullcontext()


def twin(module: nn.Module) -> Any:
    """The same model over the same tensors, without the lab's hooks."""
    tensors = [*module.parameters(), *module.buffers()]
    with _unhooked(module):
        return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


@contextmanager
def _unhooked(module: nn.Module) -> Iterator[None]:
    """Inside, the hooks of `PhaseProbe` are away."""
    away: list[tuple[Any, int, Any]] = []
    for part in module.modules():
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            ours = [key for key, hook in hooks.items() if hook.__module__ == PhaseProbe.__module__]
            away += [(hooks, key, hooks.pop(key)) for key in ours]
    try:
        yield
    finally:
        for hooks, key, hook in away:
            hooks[key] = hook


# ------------------------------------------------------------------------------------- the peers


class PlainVoxtral(VoxtralTransformers):
    """The lab's prompts and transformers' `model.generate(do_sample=False)`; one for all peers."""

    def __init__(self, lent: LentVoxtral) -> None:
        super().__init__(replace(lent.spec, decoding="generate"), lent.device)
        self._lent = lent

    def load(self) -> None:
        if self.loaded:
            return
        self._lent.load()
        self._model, self._processor = twin(self._lent.module()), self._lent._processor
        self._loop = self._lent._loop  # knows which tokens end an answer
        self._probe = Unwatched()  # type: ignore[assignment]

    def unload(self) -> None:
        return None


class PeerWhisper(SpeechRecognizer):
    """A Whisper as its library offers it, greedy, one window after the other."""

    _model: Any = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def module(self) -> Any:
        return self._model

    def unload(self) -> None:
        self._model = None
        self.device.release()

    def transcribe(
        self,
        batch: Sequence[Samples],
        options: TranscribeOptions = DEFAULT_OPTIONS,
    ) -> list[GenerationResult]:
        texts, most = [], options.max_new_tokens or catalog.MOST_TRANSCRIPT_TOKENS_PER_WINDOW
        for samples in batch:
            said = [self._say(piece, options.language, most) for piece in windows(samples)]
            texts.append(GenerationResult(" ".join(words for words in said if words), ()))
        return texts

    def _say(self, samples: Samples, language: str, max_new_tokens: int) -> str:
        raise NotImplementedError


class OriginalWhisper(PeerWhisper):
    """`whisper.transcribe` with its own defaults: it asks again at a higher temperature where it
    doubts itself. Random weights would make it doubt always, so there it is asked once."""

    def __init__(self, lent: LentWhisper) -> None:
        super().__init__(lent.spec, lent.device)
        self._lent = lent

    def load(self) -> None:
        self._lent.load()
        self._model = twin(self._lent.module())

    def _say(self, samples: Samples, language: str, max_new_tokens: int) -> str:
        from whisper.tokenizer import get_tokenizer

        once: dict[str, Any] = {}
        if not self.spec.has_text:
            once = {
                "temperature": 0.0,
                "no_speech_threshold": None,
                "suppress_tokens": f"-1,{get_tokenizer(True).eot}",
            }
        result = self._model.transcribe(
            samples,
            language=language or None,
            without_timestamps=True,
            sample_len=max_new_tokens,
            fp16=not self.device.is_host,  # its default; there is no such path on a CPU
            **once,
        )
        return str(result["text"]).strip()


class PipelineWhisper(PeerWhisper):
    """`pipeline("automatic-speech-recognition")`, greedy (by itself it has five beams where the
    model's own configuration names none)."""

    _pipeline: Any = None

    def load(self) -> None:
        if self.spec.weights == "hub":
            self._open(str(folder_of(self.spec)))
            return
        # saved anew, as the pocket models' folders have no tokenizer of their own
        with tempfile.TemporaryDirectory(prefix="hybridlab-pipeline-") as folder:
            save(self.spec, CpuDevice(), Path(folder))
            self._open(folder)

    def _open(self, source: str) -> None:
        from transformers import pipeline

        self._pipeline = pipeline(
            "automatic-speech-recognition",
            model=source,
            dtype=torch_dtype(self.spec.dtype),
            device=self.device.name,
        )
        self._model = self._pipeline.model

    def unload(self) -> None:
        self._pipeline = None
        super().unload()

    def _say(self, samples: Samples, language: str, max_new_tokens: int) -> str:
        options = {"task": "transcribe", "num_beams": 1, "max_new_tokens": max_new_tokens}
        if language:
            options["language"] = language
        if not self.spec.has_text:
            options["min_new_tokens"] = max_new_tokens
        audio = {"raw": samples, "sampling_rate": catalog.SAMPLE_RATE_HZ}
        return str(self._pipeline(audio, generate_kwargs=options)["text"]).strip()


class OffloadedWhisper(WhisperTransformers):
    """Waits on the host, comes in when it is called, and is sent back after it."""

    def load(self) -> None:
        if self.device.is_host:
            raise UnavailableError(
                "accelerate's offload goes from the host to a device: on a CPU it moves nothing"
            )
        super().load()
        self.offload_to(self.device.name)

    def offload_to(self, execution_device: str) -> None:
        from accelerate import cpu_offload_with_hook

        self._model, self._offload = cpu_offload_with_hook(
            WholeCall(twin(self._model)), execution_device
        )
        self._probe = Unwatched()  # type: ignore[assignment]

    @torch.inference_mode()
    def transcribe(
        self,
        batch: Sequence[Samples],
        options: TranscribeOptions = DEFAULT_OPTIONS,
    ) -> list[GenerationResult]:
        try:
            return super().transcribe(batch, options)
        finally:
            self._offload.offload()


class WholeCall(nn.Module):
    """One forward pass is one `generate`: accelerate's hook brings a model in when its `forward` is
    called, but `generate` calls the encoder by itself first."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.generation_config = model.generation_config

    @property
    def dtype(self) -> torch.dtype:
        own: torch.dtype = self.model.dtype
        return own

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.model.generate(*arguments, **options)

    def generate(self, *arguments: Any, **options: Any) -> Any:
        return self(*arguments, **options)


# -------------------------------------------------------------------------------------- the arms


@dataclass
class Pair:
    """The two models of every arm. `whisper` is the lab's own, through openai-whisper."""

    whisper: ModelSpec
    voxtral: ModelSpec
    device: Device

    @cached_property
    def lent_whisper(self) -> LentWhisper:
        return LentWhisper(self.whisper, self.device)

    @cached_property
    def lent_voxtral(self) -> LentVoxtral:
        return LentVoxtral(self.voxtral, self.device)

    @cached_property
    def plain_voxtral(self) -> PlainVoxtral:
        return PlainVoxtral(self.lent_voxtral)

    def makers(self) -> Makers:
        """All arms in the order of a round."""
        made: Makers = {name: lambda name=name: self._peer(name) for name in PEERS}  # type: ignore[misc]
        return made | {name: lambda name=name: self._ours(name) for name in OURS}  # type: ignore[misc]

    def _peer(self, name: str) -> Strategy:
        whisper = self._peers_whisper(name)
        return make_strategy("sequential", "plain", asr=whisper, llm=self.plain_voxtral)

    def _peers_whisper(self, name: str) -> SpeechRecognizer:
        if name == BASELINE:
            return OriginalWhisper(self.lent_whisper)
        if name == "faster-whisper":
            return make_asr(
                asr_spec(catalog.variant("parallel", "ctranslate2"), self.whisper, self.device),
                self.device,
            )
        dtype = resolve_dtype("auto", backend="transformers", device=self.device, role="asr")
        spec = replace(self.whisper, backend="transformers", dtype=dtype)
        kind = PipelineWhisper if name == "transformers-pipeline" else OffloadedWhisper
        return kind(spec, self.device)

    def _ours(self, name: str) -> Strategy:
        strategy, variant = name.split("/")
        spec = asr_spec(catalog.variant(strategy, variant), self.whisper, self.device)
        whisper: SpeechRecognizer | None = self.lent_whisper
        if strategy == "solo":
            whisper = None
        elif strategy == "swapping" or spec != self.whisper:  # weights of its own, or that go
            whisper = make_asr(spec, self.device)
        return make_strategy(strategy, variant, asr=whisper, llm=self.lent_voxtral)
