"""What a request takes above the weights, phase by phase.

Counts of tensors alive at the worst moment were read off the libraries' code (transformers 5.23,
openai-whisper 20250625) and are proved in `tests/planner/test_live_tensors.py` by tracing the true
architectures on the meta device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.catalog import Attention, AudioEncoder, Card, VoxtralModel, WhisperModel
from hybridlab.planner.estimate import ZERO, Estimate, largest, total
from hybridlab.units import BYTES_PER_DTYPE

#: Bytes per score of the math kernel: it upcasts to float32; scores and their softmax are alive
#: together at least; `_safe_softmax` may hold a mask (1 byte) and its `where` (4) beside them
#: (aten/native/transformers/attention.cpp). Measured on a CPU with torch 2.13: 9.1 to 11.0.
MATH_BYTES_PER_SCORE = Estimate(8, 10, 13)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request for which the peak is predicted."""

    audio_s: float = 30.0
    new_tokens: int = 200
    prompt_tokens: int = 32  # text of a question and the control tokens around it
    beams: int = 1
    batch: int = 1

    @property
    def windows(self) -> int:
        """Started windows of 30 s; all of them pass Voxtral's encoder in one batch."""
        return max(1, math.ceil(self.audio_s / catalog.WINDOW_S))

    @property
    def whisper_windows(self) -> int:
        """Even pieces into which the lab cuts the audio for Whisper (`audio.windows`)."""
        if self.audio_s <= catalog.WINDOW_S:
            return 1
        return math.ceil(self.audio_s / (catalog.WINDOW_S - catalog.WINDOW_REACH_S))


def compute_width(dtype: str, backend: str, card: Card) -> float:
    """Bytes per activation. openai-whisper computes in float16 from float32 weights (fp16=True)
    except on a CPU; quantised models compute in 16 bit."""
    if dtype in ("int8", "int4"):
        return 2.0
    if catalog.backend(backend).half_activations and "float16" in card.native_dtypes:
        return 2.0
    return BYTES_PER_DTYPE[dtype]


def kernel_of(attention: Attention, card: Card) -> Attention:
    """The kernel that grouped-query attention gets. transformers passes `enable_gqa`, for which
    compute capability 7.5 has no fused kernel: `auto` is `math` there and `flash` elsewhere."""
    if attention != "auto":
        return attention
    return "flash" if card.fused_gqa else "math"


# ------------------------------------------------------------------------------------ features


def spectrogram_bytes(seconds: float) -> int:
    """Log-mel features of so much audio while they are computed: 201 bins x 100 frames a second,
    complex (8 bytes) beside their magnitude and its square (4 each; whisper/audio.py)."""
    return int(201 * 100 * (8 + 4 + 4) * seconds)


def prepare_bytes(rows: int, mel_bins: int, *, backend: str, card: Card) -> Estimate:
    """openai-whisper computes features on the device, window by window; the other libraries on the
    host, all at once, which takes device memory only if that is it."""
    kept = rows * mel_bins * catalog.MEL_FRAMES_PER_WINDOW * 4
    if catalog.backend(backend).features_on_device:
        return Estimate.exact(spectrogram_bytes(catalog.WINDOW_S) + kept)
    if card is not catalog.HOST:
        return ZERO
    return Estimate.exact(rows * spectrogram_bytes(catalog.WINDOW_S) + kept)


def audio_array_bytes(request: Request) -> int:
    """The audio of a Voxtral request on the host before it is a tensor: base64 of a 16-bit WAV
    (2 x 4/3 bytes a sample), decoded to float64 (8) and float32 (4) by mistral-common."""
    samples = request.batch * request.audio_s * catalog.SAMPLE_RATE_HZ
    return int((2 * 4 / 3 + 8 + 4) * samples)


def carried_audio_bytes(request: Request, *, card: Card) -> Estimate:
    """The audio itself while features are made, as arrays and as a float32 tensor: on the host,
    which takes device memory only if that is it. With the spectrogram 672 kB per second of audio;
    measured on a CPU with 4 to 16 min: 681 to 685."""
    if card is not catalog.HOST:
        return ZERO
    tensor = 4 * request.batch * request.audio_s * catalog.SAMPLE_RATE_HZ
    return Estimate.exact(audio_array_bytes(request) + tensor)


# ------------------------------------------------------------------------------------- encoder


def encoder_bytes(
    encoder: AudioEncoder, *, rows: int, width: float, backend: str, attention: Attention = "auto"
) -> Estimate:
    """Peak of the encoder for `rows` windows: its feed-forward block (`Backend.encoder_tensors`)
    beside the features, or, with the math kernel pinned, heads x positions^2 scores per window.
    Multi-head attention has a fused kernel on every card: `auto` never means `math` here."""
    unit = encoder.positions * encoder.d_model * width
    features = encoder.mel_bins * catalog.MEL_FRAMES_PER_WINDOW * width
    plain = Estimate.exact(rows * (catalog.backend(backend).encoder_tensors * unit + features))
    if attention != "math":
        return plain
    scores = MATH_BYTES_PER_SCORE * (rows * encoder.heads * encoder.positions**2)
    return largest([plain, scores + Estimate.exact(rows * 8 * unit)])


# ------------------------------------------------------------------------------------- Whisper


def whisper_phases(
    model: WhisperModel,
    request: Request,
    *,
    backend: str,
    dtype: str,
    card: Card,
) -> dict[str, Estimate]:
    """Transient bytes of a Whisper call above its weights, by phase.

    Decode holds the encoder's output, cross-attention K and V of every decoder layer for each
    hypothesis, their self-attention cache, one temporary of a layer's K or V, and the logits in
    float32 twice (log-softmax). CTranslate2 runs a clip's windows one after the other, and the lab
    has openai-whisper encode them so on a host.
    """
    width = compute_width(dtype, backend, card)
    known = catalog.backend(backend)
    rows = request.batch * (1 if known.windows_in_turn else request.whisper_windows)
    d = model.encoder.d_model
    unit = model.encoder.positions * d * width
    features = model.encoder.mel_bins * catalog.MEL_FRAMES_PER_WINDOW * width
    at_once = 1 if known.host_windows_in_turn and card is catalog.HOST else rows
    encode = encoder_bytes(model.encoder, rows=at_once, width=width, backend=backend)
    encode = encode + Estimate.exact((rows - at_once) * (unit + features))
    tokens = min(request.new_tokens + 4, catalog.WHISPER_MAX_TARGET_POSITIONS)
    hypotheses = rows * request.beams
    cross_kv = model.cross_kv_values * hypotheses * width
    self_kv = model.self_kv_values_per_token * tokens * hypotheses * width
    logits = 2 * 4 * model.vocab_size * hypotheses
    decode = rows * unit + cross_kv + hypotheses * unit + self_kv + logits
    if width < BYTES_PER_DTYPE[dtype]:
        # casts per operation: the head's whole embedding while decoding, fc1 while encoding
        decode += model.vocab_size * d * width
        encode = encode + Estimate(0, 0, int(4 * d * d * width))
    return {
        "prepare": prepare_bytes(rows, model.encoder.mel_bins, backend=backend, card=card),
        "encode": encode,
        "decode": Estimate.exact(decode),
    }


def whisper_request_bytes(
    model: WhisperModel, request: Request, *, backend: str, dtype: str, card: Card
) -> int:
    """Expected transient bytes of one Whisper call: the largest of its phases."""
    phases = whisper_phases(model, request, backend=backend, dtype=dtype, card=card)
    return largest(list(phases.values())).expected


# ------------------------------------------------------------------------------------- Voxtral


def voxtral_phases(
    model: VoxtralModel,
    request: Request,
    *,
    dtype: str,
    card: Card,
    attention: Attention = "auto",
) -> dict[str, Estimate]:
    """Transient bytes of a Voxtral request above its weights, by phase.

    All windows of the audio pass the encoder in one batch. Prefill holds the KV cache so far, the
    features, five tensors of (tokens, hidden), and three of (tokens, ffn) in the SwiGLU block or
    whatever attention needs, the larger. `generate` computes the head on the last position only;
    logits are kept in float32 beside the 16-bit ones. Decode appends to the cache with `cat`,
    which holds one layer's K twice, and with the math kernel expands K and V to float32.
    """
    width = compute_width(dtype, "transformers", card)
    windows, text = request.windows * request.batch, model.text
    encode = encoder_bytes(
        model.encoder, rows=windows, width=width, backend="transformers", attention=attention
    )
    features = windows * model.encoder.mel_bins * catalog.MEL_FRAMES_PER_WINDOW * width
    length = catalog.VOXTRAL_TOKENS_PER_WINDOW * request.windows + request.prompt_tokens
    rows, every = request.batch, length + request.new_tokens
    prompt_kv = voxtral_kv_bytes(model, tokens=length, width=width) * rows
    whole_kv = voxtral_kv_bytes(model, tokens=every, width=width) * rows
    hidden = 5 * length * text.hidden * width * rows
    feed_forward = Estimate.exact(3 * length * text.ffn * width * rows)
    prefill = largest(
        [feed_forward, attention_bytes(model, length, rows, width, kernel_of(attention, card))]
    )
    logits = (4 + width) * text.vocab_size * rows
    step = whole_kv / (2 * text.layers) + logits
    if kernel_of(attention, card) == "math":  # K and V of one layer, all heads, in float32
        step += 2 * 4 * text.heads * text.head_dim * every * rows
    mel_bins = model.encoder.mel_bins
    return {
        "prepare": prepare_bytes(windows, mel_bins, backend="transformers", card=card)
        + carried_audio_bytes(request, card=card),
        "encode": encode,
        "prefill": Estimate.exact(prompt_kv + features + hidden + logits) + prefill,
        "decode": Estimate.exact(whole_kv + features + step),
        "head": Estimate.exact(whole_kv + features + logits + _repacked_head(model, dtype, card)),
    }


def _repacked_head(model: VoxtralModel, dtype: str, card: Card) -> int:
    """On a CPU oneDNN copies a bfloat16 matrix into its own layout at every call; the head is by
    far the largest (measured at full size with torch 2.13: 0.8 GB above rest while it runs)."""
    if card is not catalog.HOST or dtype != "bfloat16":
        return 0
    return 2 * model.head_parameters


def voxtral_request_bytes(
    model: VoxtralModel,
    request: Request,
    *,
    dtype: str,
    card: Card,
    attention: Attention = "auto",
) -> int:
    """Expected transient bytes of one Voxtral request: the largest of its phases."""
    phases = voxtral_phases(model, request, dtype=dtype, card=card, attention=attention)
    return largest(list(phases.values())).expected


def voxtral_kv_bytes(model: VoxtralModel, *, tokens: int, width: float) -> int:
    """KV cache of one row: 2 x layers x KV heads x head_dim per token (122,880 B in 16 bit)."""
    return int(model.text.kv_values_per_token * tokens * width)


def attention_bytes(
    model: VoxtralModel, length: int, rows: int, width: float, kernel: Attention
) -> Estimate:
    """What one layer's attention holds during prefill beside its output.

    `flash` reads grouped heads as they are. `efficient` and `expanded_kv` need K and V of all
    heads. `math` upcasts q and the expanded K and V to float32 and builds heads x L x L scores
    (facts: one matrix is 18 MiB at 383 tokens and 1.7 GiB at 5 min of audio).
    """
    text = model.text
    one = length * text.heads * text.head_dim * rows
    if kernel == "flash":
        return ZERO
    if kernel in ("efficient", "expanded_kv"):
        return Estimate.exact(2 * one * width)
    scores = MATH_BYTES_PER_SCORE * (text.heads * length * length * rows)
    return total([scores, Estimate.exact(3 * 4 * one + 2 * one * width)])
