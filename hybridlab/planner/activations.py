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
from hybridlab.catalog.kernels import Kernel, attention_kernel, math_bytes_per_score
from hybridlab.errors import ParameterError
from hybridlab.planner.estimate import ZERO, Estimate, largest
from hybridlab.units import BYTES_PER_DTYPE

FLOAT32 = BYTES_PER_DTYPE["float32"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request for which the peak is predicted."""

    audio_s: float = 30.0
    new_tokens: int = 200
    #: Of Whisper, a window. None: as many as `new_tokens`.
    asr_new_tokens: int | None = None
    prompt_tokens: int = 32  # text of a question and the control tokens around it
    beams: int = 1
    batch: int = 1
    #: Rows of a batch differ in length, and a mask says where each ends.
    padded: bool = False

    def __post_init__(self) -> None:
        counts = (self.new_tokens, self.whisper_tokens, self.beams, self.batch)
        if not (0 < self.audio_s < math.inf and min(counts) > 0):  # not a number neither
            raise ParameterError("audio_s, new_tokens, beams and batch must be above zero")

    @property
    def whisper_tokens(self) -> int:
        """Tokens that Whisper decodes of a window."""
        return self.new_tokens if self.asr_new_tokens is None else self.asr_new_tokens

    @property
    def windows(self) -> int:
        """Started windows of 30 s; all of them pass Voxtral's encoder in one batch."""
        return max(1, math.ceil(self.audio_s / catalog.WINDOW_S))

    @property
    def whisper_windows(self) -> int:
        """Pieces into which the lab cuts the audio for Whisper at most (`audio.windows`)."""
        if self.audio_s <= catalog.WINDOW_S:
            return 1
        return math.ceil(self.audio_s / (catalog.WINDOW_S - catalog.WINDOW_REACH_S))


def compute_dtype(dtype: str, backend: str, card: Card) -> str:
    """Of activations. openai-whisper computes in float16 from float32 weights (fp16=True) except on
    a CPU; quantised models compute in 16 bit."""
    if dtype in ("int8", "int4"):
        return "float16"
    if catalog.backend(backend).half_activations and "float16" in card.native_dtypes:
        return "float16"
    return dtype


def whisper_kernel(card: Card, *, backend: str, dtype: str) -> Kernel:
    """In a Whisper's encoder."""
    computes_in = compute_dtype(dtype, backend, card)
    return attention_kernel(card, computes_in, engine=catalog.backend(backend).engine)


def reads_groups(request: Request, attention: Attention) -> bool:
    """Whether Voxtral's K and V are passed with their fewer heads: transformers expands them for a
    mask, and where that is asked for."""
    return attention != "expanded_kv" and not request.padded


def voxtral_kernel(
    card: Card, request: Request, *, dtype: str, attention: Attention = "auto"
) -> Kernel:
    """For the prompt of a Voxtral."""
    return attention_kernel(
        card,
        compute_dtype(dtype, "transformers", card),
        attention=attention,
        grouped=reads_groups(request, attention),
        masked=request.padded,
    )


def math_bytes(
    *,
    rows: int,
    length: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    width: float,
    causal: bool,
) -> Estimate:
    """What torch's math kernel holds beside its caller's q, k and v while it computes the softmax:
    scores, q scaled, K and V of all heads, from 16 bit also q, k and v upcast, and a causal mask
    (aten/native/transformers/attention.cpp)."""
    one = 4 * rows * heads * head_dim * length
    copies = float(one) if kv_heads == heads else 3.0 * one
    if width < FLOAT32:
        copies = 4.0 * one if kv_heads == heads else 4.0 * one + 2 * one * kv_heads / heads
    mask = FLOAT32 * length**2 if causal else 0
    scores = Estimate(*math_bytes_per_score()) * (rows * heads * length**2)
    return scores + Estimate.exact(copies + mask)


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
    encoder: AudioEncoder, *, rows: int, width: float, backend: str, kernel: Kernel = "flash"
) -> Estimate:
    """Peak of the encoder for `rows` windows beside its features: its feed-forward block
    (`Backend.encoder_tensors`), or attention where that builds scores, beside the caller's input,
    two residuals, q, k and v."""
    unit = encoder.positions * encoder.d_model * width
    feed_forward = Estimate.exact(rows * catalog.backend(backend).encoder_tensors * unit)
    attending = Estimate.exact(rows * 6 * unit)
    if kernel == "scores":
        scores = rows * encoder.heads * encoder.positions**2 * width
        return largest([feed_forward, attending + Estimate.exact(scores)])
    if kernel != "math":
        return feed_forward
    scores_and_copies = math_bytes(
        rows=rows,
        length=encoder.positions,
        heads=encoder.heads,
        kv_heads=encoder.heads,
        head_dim=encoder.d_model // encoder.heads,
        width=width,
        causal=False,
    )
    return largest([feed_forward, attending + scores_and_copies])


def features_bytes(rows: int, mel_bins: int, *, width: float, backend: str) -> float:
    """Features of so many windows while a Whisper works: as they came, in float32; cast to what it
    computes in; and the segment that transformers' `generate` cuts out of them."""
    values = rows * mel_bins * catalog.MEL_FRAMES_PER_WINDOW
    cast = width if width < FLOAT32 else 0
    segment = width if catalog.backend(backend).copies_segment else 0
    return values * (FLOAT32 + cast + segment)


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

    Decode holds the encoder's output, cross-attention K and V of every decoder layer, those that
    the last layer has just computed, the self-attention cache, and the logits in float32 twice
    (log-softmax). transformers copies the encoder's output, and with it K and V, for each beam; the
    other libraries let beams share them, and the lab gives openai-whisper, which can do so for one
    window only, one after the other then. CTranslate2 always gets them so, and on a host
    openai-whisper's encoder. The highest that decode may take is one window again, with the beams
    for what the model is unsure of, which share its K and V in every library.
    """
    known = catalog.backend(backend)
    computes_in = compute_dtype(dtype, backend, card)
    width = BYTES_PER_DTYPE[computes_in]
    windows = request.batch * request.whisper_windows
    rows = request.batch if known.windows_in_turn else windows
    if known.beams_window_by_window and request.beams > 1:
        rows = 1
    d, mel_bins = model.encoder.d_model, model.encoder.mel_bins
    unit = model.encoder.positions * d * width
    features = features_bytes(rows, mel_bins, width=width, backend=backend)
    if known.features_on_device:
        features += (windows - rows) * mel_bins * catalog.MEL_FRAMES_PER_WINDOW * FLOAT32
    at_once = 1 if known.host_windows_in_turn and card is catalog.HOST else rows
    kernel = whisper_kernel(card, backend=backend, dtype=dtype)
    encode = encoder_bytes(model.encoder, rows=at_once, width=width, backend=backend, kernel=kernel)
    encode = encode + Estimate.exact((rows - at_once) * unit + features)
    tokens = min(request.whisper_tokens + 4, catalog.WHISPER_MAX_TARGET_POSITIONS)
    token_bytes = model.self_kv_values_per_token * tokens * width + 2 * FLOAT32 * model.vocab_size
    hypotheses = rows * request.beams
    heard = hypotheses if known.copies_audio_per_beam else rows
    cross_kv = model.cross_kv_values * width
    decode = heard * (unit + known.fresh_cross_kv * unit + cross_kv) + features
    decode += hypotheses * token_bytes
    copies = catalog.UNSURE_BEAMS if known.copies_audio_per_beam else int(rows > 1)
    again = (rows + copies + known.fresh_cross_kv) * unit + features + cross_kv
    again += catalog.UNSURE_BEAMS * token_bytes
    if width < BYTES_PER_DTYPE[dtype]:
        # casts per operation: the head's whole embedding while decoding, fc1 while encoding
        decode += model.vocab_size * d * width
        again += model.vocab_size * d * width
        encode = encode + Estimate(0, 0, int(4 * d * d * width))
    return {
        "prepare": prepare_bytes(windows, mel_bins, backend=backend, card=card),
        "encode": encode,
        "decode": Estimate(
            int(decode), int(decode), int(max(decode, again if request.beams == 1 else 0))
        ),
    }


def whisper_request_bytes(
    model: WhisperModel, request: Request, *, backend: str, dtype: str, card: Card
) -> int:
    """Expected transient bytes of one Whisper call: the largest of its phases, or one window
    decoded again with beams."""
    phases = whisper_phases(model, request, backend=backend, dtype=dtype, card=card)
    return max(largest(list(phases.values())).expected, phases["decode"].high)


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

    All windows of the audio pass the encoder in one batch, beside the prompt's embeddings. Prefill
    holds the KV cache so far, features, the audio's embeddings and rotary tables, and then either
    four tensors of (tokens, hidden) and the SwiGLU block's three of (tokens, ffn), or three, q and
    whatever attention needs. `generate` computes the head on the last position only; logits are
    kept in float32 beside the 16-bit ones. Decode appends to the cache with `cat`, which holds one
    layer's K twice, and with the math kernel copies K and V in float32.
    """
    computes_in = compute_dtype(dtype, "transformers", card)
    width = BYTES_PER_DTYPE[computes_in]
    windows, text, rows = request.windows * request.batch, model.text, request.batch
    encode = encoder_bytes(
        model.encoder,
        rows=windows,
        width=width,
        backend="transformers",
        kernel=attention_kernel(card, computes_in, attention=attention),
    )
    features = windows * model.encoder.mel_bins * catalog.MEL_FRAMES_PER_WINDOW * width
    length = catalog.VOXTRAL_TOKENS_PER_WINDOW * request.windows + request.prompt_tokens
    every = length + request.new_tokens
    whole_kv = voxtral_kv_bytes(model, tokens=every, width=width) * rows
    hidden = length * text.hidden * width * rows
    heard = catalog.VOXTRAL_TOKENS_PER_WINDOW * windows * text.hidden * width
    rotary = 2 * length * text.head_dim * width
    mask = rows * length**2 if request.padded else 0
    prompt_kv = voxtral_kv_bytes(model, tokens=length, width=width) * rows
    kept = prompt_kv + features + heard + rotary + mask
    feed_forward = Estimate.exact(4 * hidden + 3 * length * text.ffn * width * rows)
    query = length * text.heads * text.head_dim * width * rows
    grouped = reads_groups(request, attention)
    kernel = voxtral_kernel(card, request, dtype=dtype, attention=attention)
    attending = Estimate.exact(3 * hidden + query) + attention_bytes(
        model, length, rows, width, kernel, grouped=grouped, padded=request.padded
    )
    logits = (FLOAT32 + width) * text.vocab_size * rows
    step = whole_kv / (2 * text.layers) + logits
    if kernel == "math":
        upcast = text.kv_heads if width < FLOAT32 else 0
        step += 2 * FLOAT32 * (text.heads + upcast) * text.head_dim * every * rows
    mel_bins = model.encoder.mel_bins
    return {
        "prepare": prepare_bytes(windows, mel_bins, backend="transformers", card=card)
        + carried_audio_bytes(request, card=card),
        "encode": encode + Estimate.exact(features + hidden),
        "prefill": Estimate.exact(kept) + largest([feed_forward, attending]),
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
    model: VoxtralModel,
    length: int,
    rows: int,
    width: float,
    kernel: Kernel,
    *,
    grouped: bool = True,
    padded: bool = False,
) -> Estimate:
    """What one layer's attention holds during prefill beside q and the cache: its output, K and V
    of all heads where they are not read as groups, the mask of padded rows, and what `math_bytes`
    says (facts: one score matrix is 18 MiB at 383 tokens and 1.7 GiB at 5 min of audio)."""
    text = model.text
    one = length * text.heads * text.head_dim * width * rows
    mask = rows * length**2 * width if padded else 0  # in the kernel's dtype, beside its booleans
    expanded = 0 if grouped else 2 * one
    if kernel != "math":
        return Estimate.exact(one + expanded + mask)
    held = math_bytes(
        rows=rows,
        length=length,
        heads=text.heads,
        kv_heads=text.kv_heads if grouped else text.heads,
        head_dim=text.head_dim,
        width=width,
        causal=not padded,
    )
    return held + Estimate.exact(expanded + mask)
