"""Libraries that run the recogniser, and what each does with memory: read off their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hybridlab.catalog.registry import Registry
from hybridlab.errors import ParameterError
from hybridlab.units import BYTES_PER_DTYPE

#: How attention is computed. `auto` is what transformers does on the device; `expanded_kv` repeats
#: the KV heads first, which lets the memory-efficient kernel in where grouped heads keep it out.
Attention = Literal["auto", "math", "efficient", "flash", "expanded_kv"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)

#: How Voxtral's tokens are decoded. `generate`: as transformers does by default. `static`: the same
#: with a KV cache of fixed size, which transformers compiles on a GPU. `loop`: a plain greedy loop.
Decoding = Literal["generate", "static", "loop"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

#: How Whisper's tokens are decoded. `timestamps`: with them, so that no audio is left unread, with
#: openai-whisper's thresholds for silence, loops and improbable text. `plain`: one pass over each
#: window without either, for measurements of fixed work. `auto`: timestamps where the weights are
#: released ones.
AsrDecoding = Literal["auto", "timestamps", "plain"]

#: How weights reach the device. `direct`: as the backend loads with a device given. `staged`: built
#: on the host, then moved.
LoadPath = Literal["direct", "staged"]
#: Which model is loaded first: the load peak of the other comes on top of it.
LoadOrder = Literal["llm-first", "asr-first"]

#: Who publishes the checkpoints that a backend loads from the hub, and in which format.
Checkpoints = Literal["transformers", "openai", "ctranslate2"]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A library behind `hybridlab.models.base.SpeechRecognizer`.

    The flags say in what its memory differs from transformers', whose files are mapped, whose
    features are computed on the host and whose windows are encoded in one batch.
    """

    name: str
    recognizer: str  #: its class, as `module:class`
    module: str  #: what is imported of it
    extra: str = ""  #: of this package, which installs it
    dtypes: tuple[str, ...]  #: in which it can KEEP the weights
    default_dtype: str
    checkpoints: Checkpoints = "transformers"
    #: Tensors of (positions, d_model) alive in the encoder's feed-forward block while GELU runs.
    encoder_tensors: int = 12
    #: Computes in float16 whatever it keeps the weights in, where the card has it in hardware.
    half_activations: bool = False
    features_on_device: bool = False
    #: Whose attention: torch's, or its own.
    engine: Literal["torch", "ctranslate2"] = "torch"
    #: `generate` cuts the segment that it works on out of the features, also where that is all.
    copies_segment: bool = False
    #: Each beam has the encoder's output, and the cross-attention's K and V, for itself.
    copies_audio_per_beam: bool = False
    #: Of K and V that a layer has just computed, those that are not yet the cache's own.
    fresh_cross_kv: int = 0
    #: Windows of a clip go through the model one after the other.
    windows_in_turn: bool = False
    #: Beams share the encoder's output, and the lab gives it one window after the other then.
    beams_window_by_window: bool = False
    #: The lab has it encode them so where the device is the host.
    host_windows_in_turn: bool = False
    #: Keeps the decoder's mask as a buffer, and the LayerNorms in float32 beside float16 weights.
    openai_buffers: bool = False
    #: Builds the model on the host in float32 beside a float16 checkpoint; a float32 model that is
    #: loaded straight to the device has the checkpoint there.
    float32_build: bool = False
    reads_whole_file: bool = False
    #: What its own library holds on a card beside torch's context: lowest, expected, highest. Not
    #: derived: public readings of whole devices less weights, a context and a request
    #: (SYSTRAN/faster-whisper's README and #1030).
    library_bytes: tuple[int, int, int] = (0, 0, 0)

    def check_dtype(self, dtype: str) -> None:
        """`ParameterError` where it cannot keep weights in this dtype."""
        if dtype not in self.dtypes:
            good = ", ".join(self.dtypes)
            raise ParameterError(
                f"{self.name} cannot keep {dtype!r} weights; choose one of: {good}"
            )


#: In the order in which a pick prefers them at the same size and precision: transformers reads its
#: weights straight into the dtype; openai-whisper builds them in float32 first; CTranslate2 is an
#: extra and holds memory that no allocator here sees.
BACKENDS: Registry[Backend] = Registry(
    "asr_backend",
    [
        # encoder (modeling_whisper.py, WhisperEncoderLayer): fc1's output and its GELU (4 each),
        # the layer's input, residual, normed input and the caller's input
        Backend(
            name="transformers",
            recognizer="hybridlab.models.whisper_transformers:WhisperTransformers",
            module="transformers",
            dtypes=("float32", "bfloat16", "float16"),
            default_dtype="float16",
            copies_segment=True,
            copies_audio_per_beam=True,
            fresh_cross_kv=2,
        ),
        # its default casts per operation (fp16=True except on a CPU); its float16 is `.half()` with
        # the LayerNorms back in float32. Encoder (whisper/model.py, ResidualAttentionBlock): fc1's
        # output and its GELU (4 each), x, its norm and the caller's x
        Backend(
            name="openai-whisper",
            recognizer="hybridlab.models.whisper_openai:WhisperOpenai",
            module="whisper",
            dtypes=("float32", "float16"),
            default_dtype="float32",
            checkpoints="openai",
            encoder_tensors=11,
            half_activations=True,
            features_on_device=True,
            beams_window_by_window=True,
            host_windows_in_turn=True,
            openai_buffers=True,
            float32_build=True,
        ),
        Backend(
            name="faster-whisper",
            recognizer="hybridlab.models.whisper_faster:WhisperCtranslate2",
            module="faster_whisper",
            extra="ct2",
            dtypes=("float32", "float16", "int8"),
            default_dtype="float16",
            checkpoints="ctranslate2",
            engine="ctranslate2",
            windows_in_turn=True,
            reads_whole_file=True,
            library_bytes=(500_000_000, 675_000_000, 850_000_000),
        ),
    ],
)

#: Dtypes in which Voxtral can be kept; int8 and int4 are bitsandbytes'.
LLM_DTYPES = tuple(BYTES_PER_DTYPE)
#: In which numbers may be as large as in Voxtral's training. Quantised weights compute in float16,
#: and would overflow as well.
WIDE_DTYPES = ("bfloat16", "float32")


def backend(name: str) -> Backend:
    """The backend of that name; `ParameterError` lists the good names."""
    return BACKENDS[name]


def attention(name: str) -> Attention:
    """The way of that name; `ParameterError` lists the good names."""
    if name not in ATTENTIONS:
        raise ParameterError.unknown_name("attention", name, ATTENTIONS)
    return name


def asr_dtypes() -> list[str]:
    """Dtypes in which some backend can keep a recogniser."""
    return [d for d in BYTES_PER_DTYPE if any(d in own.dtypes for own in BACKENDS.values())]
