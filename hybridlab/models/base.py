"""What every model can do, whichever library runs it. No torch at import."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hybridlab import catalog
from hybridlab.audio import Samples
from hybridlab.catalog import AsrDecoding, Attention, Decoding, LoadPath
from hybridlab.devices import CpuDevice, Device
from hybridlab.errors import UnavailableError
from hybridlab.models.transcription import (
    DEFAULT_OPTIONS,
    FinishReason,
    Segment,
    TranscribeOptions,
    worst,
)
from hybridlab.simulation import COPY_LIMIT_VARIABLE, STATE_VARIABLE, values
from hybridlab.units import MIB

if TYPE_CHECKING:
    from torch import nn

Role = Literal["asr", "llm"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything needed to load a model anywhere; it pickles. `dtype` is never 'auto'."""

    model: str
    backend: str
    weights: str
    dtype: str
    path: str = ""
    #: Of weights from the hub: a commit, branch or tag; '' is what the cache's `main` is at.
    revision: str = ""
    seed: int = 0
    attention: Attention = "auto"
    load_path: LoadPath = "direct"
    #: Of a language model.
    decoding: Decoding = "loop"
    #: Of a recogniser.
    asr_decoding: AsrDecoding = "auto"
    #: The card that a GPU stands in for, whose attention kernels are then used; '' for itself.
    card: str = ""

    @property
    def has_text(self) -> bool:
        """Whether the words mean anything: random weights give real bytes and times only."""
        return self.weights != "random"

    @property
    def timestamps(self) -> bool:
        """Whether a recogniser decodes with timestamps: where that is left open, whatever was
        released does; random weights cannot, and the small models of this package never learned."""
        if self.asr_decoding != "auto":
            return self.asr_decoding == "timestamps"
        return self.weights in ("hub", "local")


def values_of(*specs: ModelSpec | None) -> values.Mode:
    """Which values a simulated card needs for these: all where every model is small and says real
    words, else only those that sizes and decisions hang on."""
    return "all" if all(spec is None or spec.weights == "pocket" for spec in specs) else "sizes"


def compute_values(*specs: ModelSpec | None) -> None:
    """In a process that was started with a simulated card, let it have the values that these models
    need. Nothing anywhere else."""
    if STATE_VARIABLE in os.environ:
        mode = values_of(*specs)
        if mode == "sizes":
            os.environ[COPY_LIMIT_VARIABLE] = str(MIB)  # larger tensors have no values to copy
        values.install(mode)


#: Called with the new words of each clip of a batch while they are decoded. False: the rest is not
#: wanted, and decoding may stop.
TokenCallback = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one text: of its prompt (audio counts, padding does not), and as many as were
    decoded, the end's own among them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class GenerationResult:
    """A text, the token ids behind it (specials and timestamps removed), and how it ended."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason = "stop"
    #: None where the library behind the model does not tell.
    usage: TokenUsage | None = field(default=None, compare=False)
    #: Of a transcript by Whisper: stretches with their times, those without words left out.
    segments: tuple[Segment, ...] = field(default=(), compare=False)
    #: Whisper's code of the language that was asked for or detected; '' where nobody tells.
    language: str = field(default="", compare=False)
    #: How each window ended that the audio was cut into.
    windows: tuple[FinishReason, ...] = field(default=(), compare=False)
    #: Length of the audio of a transcript by Whisper.
    audio_s: float = field(default=0.0, compare=False)


def joined(rows: Sequence[GenerationResult]) -> GenerationResult:
    """One text of those of successive windows."""
    segments, at_s = [], 0.0
    for row in rows:
        segments += [segment.later(at_s) for segment in row.segments]
        at_s += row.audio_s
    spoken: dict[str, float] = {}
    for row in rows:
        if row.text:
            spoken[row.language] = spoken.get(row.language, 0.0) + row.audio_s
    return GenerationResult(
        " ".join(row.text for row in rows if row.text),
        tuple(token for row in rows for token in row.tokens),
        worst([row.finish_reason for row in rows]),
        segments=tuple(segments),
        language=max(spoken, key=spoken.__getitem__, default=rows[0].language),
        windows=tuple(reason for row in rows for reason in row.windows),
        audio_s=at_s,
    )


@dataclass(frozen=True)
class PhaseSpan:
    """One phase of one model on the host's perf_counter clock, in seconds; `n_bytes` where the
    phase moves, takes or frees so many."""

    role: str
    phase: str
    start_s: float
    end_s: float
    n_bytes: int | None = None


def resolve_dtype(requested: str, *, backend: str, device: Device, role: Role) -> str:
    """'auto' as a dtype: float32 on a CPU; on CUDA what the backend keeps by default, and for
    Voxtral bfloat16 where the hardware has it. An explicit dtype is checked, never emulated."""
    if requested != "auto":
        device.check_dtype(requested)
        return requested
    if device.is_host:
        return "float32"
    if role == "asr":
        return catalog.backend(backend).default_dtype
    return "bfloat16" if "bfloat16" in device.native_dtypes() else "float16"


class Model(ABC):
    """Loads, runs, unloads. `spans` collects the phases of the calls since it was last drained."""

    role: ClassVar[Role]
    name: ClassVar[str]  # "asr" or "llm": the `role` column

    def __init__(self, spec: ModelSpec, device: Device) -> None:
        self.spec = spec
        self.device = device
        self.spans: list[PhaseSpan] = []
        #: Called with 'asr encode' and the like when a phase begins, '' when it ends.
        self.on_phase: Callable[[str], None] | None = None
        #: Called by language models alone, whose decoding is `loop`: a Whisper has its words window
        #: by window. A request that is tried again begins from its first word.
        self.on_text: TokenCallback | None = None
        #: What the processor (tokenizer, mel filters) took where the host is the device.
        self.processor_bytes: int | None = None
        #: The attention kernel that the prompt of its first request got; None before one, and where
        #: nobody looks.
        self.attention_kernel: str | None = None
        #: Whether the first logits of a language model were finite numbers, which half precision
        #: may overflow; None before its first request, and where nobody looks.
        self.logits_finite: bool | None = None
        #: How often its process was lost in mid-request and started again.
        self.restarts = 0

    @contextmanager
    def _building_processor(self) -> Iterator[None]:
        """Count what building the processor inside takes of the device's own memory."""
        before = self.device.unattributed_bytes()
        yield
        after = self.device.unattributed_bytes()
        if before is not None and after is not None:
            self.processor_bytes = after - before

    def tell_phase(self, phase: str) -> None:
        """That this phase begins, or with '' that one has ended."""
        if self.on_phase is not None:
            self.on_phase(f"{self.name} {phase}" if phase else "")

    @property
    def first_stop(self) -> Device:
        """Where weights are built before they reach the device: the host, if they are staged."""
        return CpuDevice() if self.spec.load_path == "staged" else self.device

    @property
    @abstractmethod
    def loaded(self) -> bool:
        """Whether the model is there; under swapping its weights may be away for a while, which
        `weights_bytes` tells."""

    @abstractmethod
    def load(self) -> None:
        """Bring the weights onto the device. Raises WeightsError or UnavailableError."""

    @abstractmethod
    def unload(self) -> None:
        """Drop the device copy and give the memory back."""

    @abstractmethod
    def module(self) -> nn.Module | None:
        """The loaded torch module; None for backends whose weights torch does not hold."""

    def weights_bytes(self) -> int | None:
        """Bytes of parameters and buffers on the device, each storage once; None where torch does
        not hold them."""
        module = self.module()
        return None if module is None else storage_bytes(module, on=self.device.kind)

    def drain_spans(self) -> list[PhaseSpan]:
        spans, self.spans = self.spans, []
        return spans


class SpeechRecognizer(Model):
    """Audio in, words out."""

    role: ClassVar[Role] = "asr"
    name = "asr"

    @abstractmethod
    def transcribe(
        self, batch: Sequence[Samples], options: TranscribeOptions = DEFAULT_OPTIONS
    ) -> list[GenerationResult]:
        """Transcribe clips of any length together.

        batch: float32 mono at 16 kHz, each of shape (n,). `ParameterError` for a language that the
        model does not know (`catalog.language_for`).
        """


class AudioLanguageModel(SpeechRecognizer):
    """Also answers questions about the audio."""

    role: ClassVar[Role] = "llm"
    name = "llm"

    @abstractmethod
    def answer(
        self, batch: Sequence[Samples], questions: Sequence[str], *, max_new_tokens: int = 200
    ) -> list[GenerationResult]:
        """Answer `questions[i]` about `batch[i]`, greedily."""

    def prefill(self, samples: Samples) -> PrefilledAudio:
        """Encode and prefill one clip, once for any number of jobs. `UnavailableError` where the
        library behind this LLM cannot."""
        raise UnavailableError(
            f"{self.name} through {self.spec.backend} cannot reuse a prefilled clip; use "
            "solo/two-requests"
        )


class PrefilledAudio(ABC):
    """A clip in an LLM's memory, until this object goes."""

    @abstractmethod
    def transcribe(self, options: TranscribeOptions = DEFAULT_OPTIONS) -> GenerationResult:
        """As `SpeechRecognizer.transcribe` of this clip."""

    @abstractmethod
    def answer(self, question: str, *, max_new_tokens: int = 200) -> GenerationResult:
        """As `AudioLanguageModel.answer` about this clip."""


def storage_bytes(module: nn.Module, *, on: str = "") -> int:
    """Bytes of all parameters and buffers of a module, or of those on one kind of device; tied
    tensors and views count once."""
    storages: dict[int, int] = {}
    tensors: list[Any] = [*module.parameters(), *module.buffers()]
    for tensor in tensors:
        if tensor.is_sparse:  # openai-whisper's alignment heads: a few hundred bytes, no storage
            continue
        if on and tensor.device.type != on:
            continue
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
