"""Facts about cards and models: plain frozen dataclasses, no torch.

Dimensions come from the released configurations; parameter counts are derived from them here and
proved against the real architectures on the meta device in `tests/catalog/test_catalog.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hybridlab.errors import ParameterError
from hybridlab.units import GIB, MIB

# ---------------------------------------------------------------------------------------- audio

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 30.0  # both models see audio in windows of 30 s
#: For Whisper the lab cuts long audio evenly; a border may move so far to a quiet place.
WINDOW_REACH_S = 3.0
MEL_FRAMES_PER_WINDOW = 3_000  # 10 ms hop
ENCODER_POSITIONS = 1_500  # conv2 halves the frames
VOXTRAL_TOKENS_PER_WINDOW = 375  # 12.5 audio tokens per second
VOXTRAL_MAX_TRANSCRIBE_S = 30 * 60.0  # model card
VOXTRAL_MAX_ANSWER_S = 40 * 60.0  # model card
WHISPER_MAX_TARGET_POSITIONS = 448
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta "
    "no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk "
    "sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb "
    "my bo tl mg as tt ln ha ba su "
)
#: Codes of ISO 639-1 that Whisper of every size and Voxtral both take. Whisper's 'haw', 'jw' and
#: 'yue' are no such codes.
LANGUAGES = _CODES.split()

# ---------------------------------------------------------------------------------------- cards


@dataclass(frozen=True, kw_only=True)
class Card:
    """A kind of GPU.

    `usable_bytes` is what CUDA reports as the device's total, which depends on the driver: the
    smallest and largest value seen in public are both kept. The lab reads the real value where the
    card is present and never types it.
    """

    name: str
    title: str
    nominal_bytes: int  # nvidia-smi's total
    usable_bytes: int
    usable_bytes_max: int
    compute_capability: tuple[int, int]
    memory_bandwidth: float  # bytes/s, nominal
    link_bandwidth: float  # bytes/s, host to device, pinned; measured where known
    native_dtypes: tuple[str, ...]
    source: str
    #: Whether SDPA has a fused kernel for grouped-query attention; without one (compute capability
    #: 7.5) transformers' `enable_gqa` falls to the math kernel, which builds float32 scores.
    fused_gqa: bool = True

    @property
    def context_bytes(self) -> tuple[int, int, int]:
        """Driver context, loaded kernels and libraries of one process outside PyTorch's allocator:
        lowest, expected, highest. Turing: 0.11-0.16 GiB in public out-of-memory texts of T4s. Later
        chips load larger kernel images: 0.3-0.6 GiB, an assumption until measured on the card."""
        if self.compute_capability < (8, 0):
            return 113 * MIB, 144 * MIB, 164 * MIB
        return 300 * MIB, 450 * MIB, 600 * MIB


_TURING = ("float32", "float16")
_AMPERE = ("float32", "bfloat16", "float16")
_OOM = "usable: 'total capacity' in public PyTorch out-of-memory texts"

CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card(
            name="t4",
            title="NVIDIA T4",
            nominal_bytes=15_360 * MIB,
            usable_bytes=int(14.56 * GIB),
            usable_bytes_max=int(14.76 * GIB),
            compute_capability=(7, 5),
            memory_bandwidth=320e9,
            link_bandwidth=12.3e9,
            native_dtypes=_TURING,
            fused_gqa=False,
            source=f"NVIDIA T4 data sheet; {_OOM} (14.56-14.76 GiB); link: measured H2D pinned",
        ),
        Card(
            name="l4",
            title="NVIDIA L4",
            nominal_bytes=23_034 * MIB,
            usable_bytes=int(22.03 * GIB),
            usable_bytes_max=int(22.17 * GIB),
            compute_capability=(8, 9),
            memory_bandwidth=300e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA L4 data sheet; {_OOM} (22.03-22.17 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a10g",
            title="NVIDIA A10G",
            nominal_bytes=23_028 * MIB,
            usable_bytes=int(22.05 * GIB),
            usable_bytes_max=int(22.20 * GIB),
            compute_capability=(8, 6),
            memory_bandwidth=600e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A10 data sheet; {_OOM} (22.05-22.20 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="rtx-3060",
            title="GeForce RTX 3060 12 GB",
            nominal_bytes=12_288 * MIB,
            usable_bytes=int(11.72 * GIB),
            usable_bytes_max=int(11.76 * GIB),
            compute_capability=(8, 6),
            memory_bandwidth=360e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"GeForce specifications; {_OOM} (11.72-11.76 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="rtx-4090",
            title="GeForce RTX 4090",
            nominal_bytes=24_564 * MIB,
            usable_bytes=int(23.64 * GIB),
            usable_bytes_max=int(23.65 * GIB),
            compute_capability=(8, 9),
            memory_bandwidth=1_008e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"GeForce specifications; {_OOM} (23.64 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a100-40",
            title="NVIDIA A100 40 GB",
            nominal_bytes=40_960 * MIB,
            usable_bytes=int(39.38 * GIB),
            usable_bytes_max=int(39.56 * GIB),
            compute_capability=(8, 0),
            memory_bandwidth=1_555e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A100 data sheet; {_OOM} (39.38-39.56 GiB); link: PCIe 4 x16, typical",
        ),
        Card(
            name="a100-80",
            title="NVIDIA A100 80 GB",
            nominal_bytes=81_920 * MIB,
            usable_bytes=int(79.14 * GIB),
            usable_bytes_max=int(79.25 * GIB),
            compute_capability=(8, 0),
            memory_bandwidth=2_039e9,
            link_bandwidth=25e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA A100 data sheet (SXM); {_OOM} (79.14-79.25 GiB); link: PCIe 4 x16",
        ),
        Card(
            name="h100",
            title="NVIDIA H100 80 GB",
            nominal_bytes=81_559 * MIB,
            usable_bytes=int(79.10 * GIB),
            usable_bytes_max=int(79.19 * GIB),
            compute_capability=(9, 0),
            memory_bandwidth=3_350e9,
            link_bandwidth=50e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA H100 data sheet (SXM); {_OOM} (79.10-79.19 GiB); link: PCIe 5 x16",
        ),
        Card(
            name="h200",
            title="NVIDIA H200 141 GB",
            nominal_bytes=143_771 * MIB,
            usable_bytes=int(139.72 * GIB),
            usable_bytes_max=int(139.81 * GIB),
            compute_capability=(9, 0),
            memory_bandwidth=4_800e9,
            link_bandwidth=50e9,
            native_dtypes=_AMPERE,
            source=f"NVIDIA H200 data sheet; {_OOM} (139.72-139.81 GiB); link: PCIe 5 x16, typical",
        ),
    )
}


#: The CPU for formulae that ask a card: computes in the dtype that it keeps, has no driver context.
HOST = Card(
    name="cpu",
    title="this machine's CPU",
    nominal_bytes=0,
    usable_bytes=0,
    usable_bytes_max=0,
    compute_capability=(0, 0),
    memory_bandwidth=0.0,
    link_bandwidth=0.0,
    native_dtypes=("float32", "bfloat16"),
    source="not a card: its bytes are read from the machine",
)


def card(name: str) -> Card:
    """The card of that name; `ParameterError` lists the good names."""
    try:
        return CARDS[name.lower()]
    except KeyError:
        raise ParameterError.unknown_name("card", name, CARDS) from None


# --------------------------------------------------------------------------------------- models


@dataclass(frozen=True, kw_only=True)
class AudioEncoder:
    """Whisper's encoder, which Voxtral shares in shape: two convolutions and a transformer."""

    d_model: int
    layers: int
    heads: int
    mel_bins: int
    positions: int = ENCODER_POSITIONS

    @property
    def ffn(self) -> int:
        return 4 * self.d_model

    @property
    def parameters(self) -> int:
        d = self.d_model
        convolutions = self.mel_bins * d * 3 + d + d * d * 3 + d
        # k has no bias; two LayerNorms; fc1 and fc2 with biases
        layer = (4 * d * d + 3 * d) + 4 * d + (8 * d * d + 5 * d)
        return convolutions + self.positions * d + self.layers * layer + 2 * d


@dataclass(frozen=True, kw_only=True)
class WhisperModel:
    """One Whisper size; `parameters` counts as transformers does (tied head once)."""

    name: str
    encoder: AudioEncoder
    decoder_layers: int
    vocab_size: int
    hub_id: str
    openai_name: str

    @property
    def decoder_parameters(self) -> int:
        d = self.encoder.d_model
        layer = 2 * (4 * d * d + 3 * d) + 6 * d + (8 * d * d + 5 * d)
        embeddings = (self.vocab_size + WHISPER_MAX_TARGET_POSITIONS) * d
        return embeddings + self.decoder_layers * layer + 2 * d

    @property
    def parameters(self) -> int:
        return self.encoder.parameters + self.decoder_parameters

    @property
    def matrix_parameters(self) -> int:
        """Weights of linear layers and the embedding: what int8 quantisation shrinks."""
        d, encoder = self.encoder.d_model, self.encoder
        return (12 * encoder.layers + 16 * self.decoder_layers) * d * d + self.vocab_size * d

    @property
    def cross_kv_values(self) -> int:
        """Elements of the cross-attention cache per beam: K and V of every decoder layer."""
        return 2 * self.decoder_layers * self.encoder.positions * self.encoder.d_model

    @property
    def self_kv_values_per_token(self) -> int:
        return 2 * self.decoder_layers * self.encoder.d_model


@dataclass(frozen=True, kw_only=True)
class LlamaText:
    """Voxtral's text model (Llama with grouped-query attention)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab_size: int
    rope_theta: float = 1e8

    @property
    def parameters(self) -> int:
        """Without the head, which is untied and counted by the whole model."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.hidden * self.ffn + 2 * self.hidden
        return self.vocab_size * self.hidden + self.layers * layer + self.hidden

    @property
    def kv_values_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class VoxtralModel:
    """Whisper encoder, projector that folds four positions into one token, Llama."""

    name: str
    encoder: AudioEncoder
    text: LlamaText
    hub_id: str

    @property
    def projector_parameters(self) -> int:
        return self.encoder.ffn * self.text.hidden + self.text.hidden**2

    @property
    def head_parameters(self) -> int:
        return self.text.vocab_size * self.text.hidden

    @property
    def parameters(self) -> int:
        return (
            self.encoder.parameters
            + self.projector_parameters
            + self.text.parameters
            + self.head_parameters
        )

    @property
    def matrix_parameters(self) -> int:
        """Weights of the linear layers that a quantiser replaces (embeddings and head stay)."""
        text, encoder = self.text, self.encoder
        attention = text.hidden * text.head_dim * (2 * text.heads + 2 * text.kv_heads)
        text_part = text.layers * (attention + 3 * text.hidden * text.ffn)
        return text_part + 12 * encoder.layers * encoder.d_model**2 + self.projector_parameters


def _whisper(
    name: str,
    d_model: int,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    *,
    mel_bins: int = 80,
    vocab_size: int = 51_865,
    hub_id: str = "",
    openai_name: str = "",
) -> WhisperModel:
    encoder = AudioEncoder(d_model=d_model, layers=encoder_layers, heads=heads, mel_bins=mel_bins)
    return WhisperModel(
        name=name,
        encoder=encoder,
        decoder_layers=decoder_layers,
        vocab_size=vocab_size,
        hub_id=hub_id,
        openai_name=openai_name,
    )


#: Released sizes, smallest first, then the two that ship with the package.
WHISPERS: dict[str, WhisperModel] = {
    model.name: model
    for model in (
        _whisper("tiny", 384, 4, 4, 6, hub_id="openai/whisper-tiny", openai_name="tiny"),
        _whisper("base", 512, 6, 6, 8, hub_id="openai/whisper-base", openai_name="base"),
        _whisper("small", 768, 12, 12, 12, hub_id="openai/whisper-small", openai_name="small"),
        _whisper("medium", 1024, 24, 24, 16, hub_id="openai/whisper-medium", openai_name="medium"),
        _whisper(
            "large-v3",
            1280,
            32,
            32,
            20,
            mel_bins=128,
            vocab_size=51_866,
            hub_id="openai/whisper-large-v3",
            openai_name="large-v3",
        ),
        _whisper(
            "turbo",
            1280,
            32,
            4,
            20,
            mel_bins=128,
            vocab_size=51_866,
            hub_id="openai/whisper-large-v3-turbo",
            openai_name="turbo",
        ),
        _whisper("pocket-s", 64, 2, 2, 2, mel_bins=128),
        _whisper("pocket-m", 96, 3, 2, 2, mel_bins=128),
    )
}

WHISPER_SIZES = ("tiny", "base", "small", "medium", "large-v3", "turbo")
POCKET_SIZES = ("pocket-s", "pocket-m")

VOXTRALS: dict[str, VoxtralModel] = {
    model.name: model
    for model in (
        VoxtralModel(
            name="mini-3b",
            encoder=WHISPERS["large-v3"].encoder,
            text=LlamaText(
                hidden=3072,
                layers=30,
                heads=32,
                kv_heads=8,
                head_dim=128,
                ffn=8192,
                vocab_size=131_072,
            ),
            hub_id="mistralai/Voxtral-Mini-3B-2507",
        ),
        VoxtralModel(
            name="pocket",
            encoder=WHISPERS["pocket-m"].encoder,
            text=LlamaText(
                hidden=128,
                layers=4,
                heads=4,
                kv_heads=2,
                head_dim=32,
                ffn=384,
                vocab_size=4096,
            ),
            hub_id="",
        ),
    )
}

# ------------------------------------------------------------------------------------- backends

#: How attention is computed. `auto` is what transformers does on the device; `expanded_kv` repeats
#: the KV heads first, which lets the memory-efficient kernel in where grouped heads keep it out.
Attention = Literal["auto", "math", "efficient", "flash", "expanded_kv"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)

#: How Voxtral's tokens are decoded. `generate`: as transformers does by default. `static`: the same
#: with a KV cache of fixed size, which transformers compiles on a GPU. `loop`: a plain greedy loop.
Decoding = Literal["generate", "static", "loop"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)

#: How weights reach the device. `direct`: as the backend loads with a device given. `staged`: built
#: on the host, then moved.
LoadPath = Literal["direct", "staged"]
#: Who is loaded first: the other's load peak then comes on top of a resident tenant.
LoadOrder = Literal["llm-first", "asr-first"]

BACKENDS = ("openai-whisper", "transformers", "faster-whisper")

#: The dtypes in which each backend can KEEP the weights. openai-whisper's default is float32: it
#: casts per operation; its float16 is `.half()` with the LayerNorms back in float32.
BACKEND_DTYPES: dict[str, tuple[str, ...]] = {
    "openai-whisper": ("float32", "float16"),
    "transformers": ("float32", "bfloat16", "float16"),
    "faster-whisper": ("float32", "float16", "int8"),
}
BACKEND_DEFAULT_DTYPE = {
    "openai-whisper": "float32",
    "transformers": "float16",
    "faster-whisper": "float16",
}


#: The family of models that has each role; the server's clients name models by it.
FAMILIES = {"asr": "whisper", "llm": "voxtral"}


def whisper(name: str) -> WhisperModel:
    """The Whisper of that size; `ParameterError` lists the good names."""
    try:
        return WHISPERS[name]
    except KeyError:
        raise ParameterError.unknown_name("asr_model", name, WHISPERS) from None


def voxtral(name: str) -> VoxtralModel:
    """The Voxtral of that name; `ParameterError` lists the good names."""
    try:
        return VOXTRALS[name]
    except KeyError:
        raise ParameterError.unknown_name("llm", name, VOXTRALS) from None
