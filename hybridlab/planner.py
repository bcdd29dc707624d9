"""Predicted bytes of a pair on a card, from the catalog and formulae. No torch, no measurement.

Every figure here is a prediction; notebooks set the measured one beside it. Formulae count the
tensors that are alive together at the worst moment of each phase, in the dtype they are kept in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from hybridlab import catalog
from hybridlab.catalog import Card, VoxtralModel, WhisperModel
from hybridlab.errors import ParameterError
from hybridlab.units import BYTES_PER_DTYPE, MIB

#: Driver, context and libraries of one process outside PyTorch's allocator. Turing: 0.11-0.16 GiB
#: in public out-of-memory texts of T4s; later chips load larger kernels images (0.4-0.6 GiB).
CONTEXT_BYTES_TURING = 160 * MIB
CONTEXT_BYTES_LATER = 500 * MIB
#: cuBLAS' default workspace (PyTorch notes on CUDA: 8 MiB; 32 MiB from Hopper on).
CUBLAS_WORKSPACE_BYTES = 8 * MIB
CUBLAS_WORKSPACE_BYTES_HOPPER = 32 * MIB


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


@dataclass(frozen=True, kw_only=True)
class PairPlan:
    """One row of `hybridlab plan`. All bytes; `total_bytes` is the highest of the three peaks."""

    card: str
    voxtral: str
    voxtral_dtype: str
    whisper: str
    backend: str
    dtype: str
    weights_bytes: int
    load_peak_bytes: int
    steady_bytes: int
    request_peak_bytes: int
    total_bytes: int
    capacity_bytes: int
    utilization: float
    margin_bytes: int
    fits: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


# --------------------------------------------------------------------------------------- weights


def whisper_weights_bytes(model: WhisperModel, *, backend: str, dtype: str) -> int:
    """Bytes that the backend keeps on the device for this Whisper, buffers included.

    openai-whisper holds the encoder's positions as a buffer instead of a parameter, so the sum is
    the same; its float16 keeps LayerNorms in float32. int8 (CTranslate2) shrinks matrices only and
    adds one float32 scale per output row.
    """
    check_backend_dtype(backend, dtype)
    if dtype == "int8":
        rest = model.parameters - model.matrix_parameters
        scales = model.vocab_size + _whisper_rows(model)
        return int(model.matrix_parameters + 2 * rest + 4 * scales)
    n_bytes = model.parameters * BYTES_PER_DTYPE[dtype]
    if backend == "openai-whisper" and dtype == "float16":
        n_bytes += 2 * _layernorm_values(model)
    return int(n_bytes)


def _whisper_rows(model: WhisperModel) -> int:
    """Output rows of all linear layers: 4 projections and fc1 (4 d), fc2 (d) per encoder layer."""
    d = model.encoder.d_model
    return d * (9 * model.encoder.layers + 13 * model.decoder_layers)


def _layernorm_values(model: WhisperModel) -> int:
    d = model.encoder.d_model
    return d * (4 * model.encoder.layers + 6 * model.decoder_layers + 4)


def voxtral_weights_bytes(model: VoxtralModel, *, dtype: str) -> int:
    """Bytes of Voxtral's weights; int8/int4 (bitsandbytes) leave embeddings, head, norms and
    convolutions in float16."""
    if dtype in ("int8", "int4"):
        rest = model.parameters - model.matrix_parameters
        return int(model.matrix_parameters * BYTES_PER_DTYPE[dtype] + 2 * rest)
    return int(model.parameters * BYTES_PER_DTYPE[dtype])


def whisper_load_peak_bytes(model: WhisperModel, *, backend: str, dtype: str) -> int:
    """Device bytes at the worst moment of loading this Whisper.

    openai-whisper's `load_model(device="cuda")` keeps the float16 checkpoint on the GPU while the
    float32 model moves there (whisper/__init__.py). Its float16 is cast on the host and then moved,
    and the other backends write straight to their place: no more than what they keep.
    """
    kept = whisper_weights_bytes(model, backend=backend, dtype=dtype)
    if backend == "openai-whisper" and dtype == "float32":
        return kept + 2 * model.parameters
    return kept


# -------------------------------------------------------------------------------------- requests


def encoder_activation_bytes(encoder: catalog.AudioEncoder, *, rows: int, width: float) -> int:
    """Peak of the encoder for `rows` windows: in the feed-forward block fc1's output and its GELU
    (4 d each) live beside the residual and its LayerNorm (d each): 10 x positions x d."""
    return int(10 * encoder.positions * encoder.d_model * rows * width)


def whisper_request_bytes(
    model: WhisperModel, request: Request, *, backend: str, dtype: str, card: Card
) -> int:
    """Transient bytes of one Whisper call above its weights: the larger of encode and decode."""
    width = _compute_width(dtype, backend, card)
    rows = request.batch
    d = model.encoder.d_model
    encode = encoder_activation_bytes(model.encoder, rows=rows, width=width)
    features = model.encoder.positions * d * rows * width
    tokens = min(request.new_tokens + 4, catalog.WHISPER_MAX_TARGET_POSITIONS)
    hypotheses = rows * request.beams
    cross_kv = model.cross_kv_values * hypotheses * width
    self_kv = model.self_kv_values_per_token * tokens * hypotheses * width
    decode = features + cross_kv + self_kv + model.vocab_size * 4 * hypotheses
    if backend == "openai-whisper" and dtype == "float32" and width == 2:
        # the head casts the whole embedding at every step (whisper/model.py, TextDecoder.forward)
        decode += model.vocab_size * d * width
    return int(max(encode, decode))


def voxtral_request_bytes(model: VoxtralModel, request: Request, *, dtype: str, card: Card) -> int:
    """Transient bytes of one Voxtral request above its weights: the largest of its phases.

    All windows of the audio pass the encoder in one batch. Prefill keeps four feed-forward tensors
    and, where grouped-query attention falls to the math kernel (a T4), two float32 score
    matrices (scores and their softmax) of heads x L x L.
    """
    width = _compute_width(dtype, "transformers", card)
    windows, text = request.windows * request.batch, model.text
    encode = encoder_activation_bytes(model.encoder, rows=windows, width=width)
    length = catalog.VOXTRAL_TOKENS_PER_WINDOW * request.windows + request.prompt_tokens
    kv = voxtral_kv_bytes(model, tokens=length + request.new_tokens, width=width) * request.batch
    hidden = 4 * length * text.hidden * width * request.batch
    feed_forward = 4 * length * text.ffn * width * request.batch
    prefill = kv + hidden + max(feed_forward, attention_score_bytes(model, length, request, card))
    return int(max(encode, prefill))


def voxtral_kv_bytes(model: VoxtralModel, *, tokens: int, width: float) -> int:
    """KV cache of one row: 2 x layers x KV heads x head_dim per token (122,880 B in 16 bit)."""
    return int(model.text.kv_values_per_token * tokens * width)


def attention_score_bytes(model: VoxtralModel, length: int, request: Request, card: Card) -> int:
    """Score matrices of the prefill: nothing with a fused kernel, two float32 ones with `math`."""
    if card.fused_gqa:
        return 0
    return 2 * 4 * model.text.heads * length * length * request.batch


def _compute_width(dtype: str, backend: str, card: Card) -> float:
    """Bytes per activation. openai-whisper computes in float16 from float32 weights (fp16=True);
    quantised models compute in 16 bit."""
    if dtype in ("int8", "int4"):
        return 2.0
    if backend == "openai-whisper" and "float16" in card.native_dtypes:
        return 2.0
    return BYTES_PER_DTYPE[dtype]


# ------------------------------------------------------------------------------------------ pair


def context_bytes(card: Card) -> int:
    """Driver context, libraries and cuBLAS workspace of one process on this card."""
    if card is catalog.HOST:
        return 0
    if card.compute_capability < (8, 0):
        return CONTEXT_BYTES_TURING + CUBLAS_WORKSPACE_BYTES
    if card.compute_capability < (9, 0):
        return CONTEXT_BYTES_LATER + CUBLAS_WORKSPACE_BYTES
    return CONTEXT_BYTES_LATER + CUBLAS_WORKSPACE_BYTES_HOPPER


def default_voxtral_dtype(card: Card) -> str:
    """bfloat16 where the card has it in hardware, else float16 (a T4 only emulates bfloat16)."""
    return "bfloat16" if "bfloat16" in card.native_dtypes else "float16"


def check_backend_dtype(backend: str, dtype: str) -> None:
    """`ParameterError` where this backend cannot keep its weights in this dtype."""
    if backend not in catalog.BACKENDS:
        raise ParameterError.unknown_name("whisper_backend", backend, catalog.BACKENDS)
    if dtype not in catalog.BACKEND_DTYPES[backend]:
        good = ", ".join(catalog.BACKEND_DTYPES[backend])
        raise ParameterError(f"{backend} cannot keep {dtype!r} weights; choose one of: {good}")


def plan_pair(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    voxtral_dtype: str | None = None,
    request: Request | None = None,
    capacity_bytes: int | None = None,
) -> PairPlan:
    """Predicted bytes of this pair, Voxtral loaded first, both resident, one request at a time.

    `capacity_bytes` replaces the card's usable bytes where the real device has been asked.
    """
    request = request or Request()
    voxtral_dtype = voxtral_dtype or default_voxtral_dtype(card)
    capacity = card.usable_bytes if capacity_bytes is None else capacity_bytes
    context = context_bytes(card)
    voxtral_bytes = voxtral_weights_bytes(voxtral, dtype=voxtral_dtype)
    whisper_bytes = whisper_weights_bytes(whisper, backend=backend, dtype=dtype)
    whisper_load = whisper_load_peak_bytes(whisper, backend=backend, dtype=dtype)
    steady = context + voxtral_bytes + whisper_bytes
    load_peak = context + voxtral_bytes + whisper_load
    transient = max(
        whisper_request_bytes(whisper, request, backend=backend, dtype=dtype, card=card),
        voxtral_request_bytes(voxtral, request, dtype=voxtral_dtype, card=card),
    )
    total = max(load_peak, steady + transient)
    return PairPlan(
        card=card.name,
        voxtral=voxtral.name,
        voxtral_dtype=voxtral_dtype,
        whisper=whisper.name,
        backend=backend,
        dtype=dtype,
        weights_bytes=voxtral_bytes + whisper_bytes,
        load_peak_bytes=load_peak,
        steady_bytes=steady,
        request_peak_bytes=steady + transient,
        total_bytes=total,
        capacity_bytes=capacity,
        utilization=total / capacity,
        margin_bytes=capacity - total,
        fits=total <= capacity,
    )


def plan_table(
    card: Card,
    *,
    voxtral: VoxtralModel | None = None,
    sizes: tuple[str, ...] = catalog.WHISPER_SIZES,
    voxtral_dtype: str | None = None,
    request: Request | None = None,
    capacity_bytes: int | None = None,
) -> list[PairPlan]:
    """One plan for each size x backend x dtype that the card runs natively."""
    return [
        plan_pair(
            card,
            catalog.whisper(size),
            voxtral or catalog.voxtral("mini-3b"),
            backend=backend,
            dtype=dtype,
            voxtral_dtype=voxtral_dtype,
            request=request,
            capacity_bytes=capacity_bytes,
        )
        for size in sizes
        for backend, dtype in _native_combinations(card)
    ]


def _native_combinations(card: Card) -> Iterator[tuple[str, str]]:
    for backend in catalog.BACKENDS:
        for dtype in catalog.BACKEND_DTYPES[backend]:
            if dtype == "int8" or dtype in card.native_dtypes:
                yield backend, dtype


def longest_audio_s(
    card: Card,
    voxtral: VoxtralModel,
    *,
    spare_bytes: int,
    voxtral_dtype: str | None = None,
) -> float:
    """Longest audio in seconds (whole windows) whose Voxtral request fits into `spare_bytes`."""
    dtype = voxtral_dtype or default_voxtral_dtype(card)
    windows = int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S)
    for count in range(windows, 0, -1):
        request = Request(audio_s=count * catalog.WINDOW_S)
        if voxtral_request_bytes(voxtral, request, dtype=dtype, card=card) <= spare_bytes:
            return count * catalog.WINDOW_S
    return 0.0
