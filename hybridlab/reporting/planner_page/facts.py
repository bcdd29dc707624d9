"""What the page's planner knows: the catalog, the planner's constants and the bytes of weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.pick import (
    DEFAULT_MARGIN_GB,
    RELEASED_BITS,
    SIGNIFICAND_BITS,
    WHY_LATER,
)
from hybridlab.catalog import VoxtralModel, WhisperModel
from hybridlab.catalog.kernels import math_bytes_per_score
from hybridlab.planner.activations import Request, spectrogram_bytes
from hybridlab.planner.allocator import RESIDENT_CACHE_BYTES, SHARES
from hybridlab.planner.limits import MOST
from hybridlab.planner.memory_plan import cublas_workspace_bytes
from hybridlab.planner.weights import (
    voxtral_weights_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)
from hybridlab.reporting.labels import FIT_SIGNS, MOMENTS, OWNERS, PLANNER_OWNERS, WHILE
from hybridlab.units import BYTES_PER_DTYPE

CARD = (
    *("title", "usable_bytes", "usable_bytes_max", "compute_capability", "native_dtypes"),
    "context_bytes",
)
BACKEND = (
    *("dtypes", "encoder_tensors", "half_activations", "features_on_device", "engine"),
    *("copies_segment", "copies_audio_per_beam", "fresh_cross_kv", "windows_in_turn"),
    *("beams_window_by_window", "float32_build", "library_bytes"),
)
ENCODER = ("d_model", "heads", "mel_bins", "positions")
WHISPER = (
    *("parameters", "vocab_size", "cross_kv_values", "self_kv_values_per_token"),
    "published_wer",
)
TEXT = (
    *("hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab_size"),
    "kv_values_per_token",
)
#: Of the first question, by the names of `hybridlab.plan`'s arguments.
FIRST: dict[str, str | float] = {
    **{"card": "t4", "asr_model": "auto", "asr_backend": "auto", "asr_dtype": "auto"},
    **{"llm_model": "mini-3b", "llm_dtype": "auto", "attention": "auto"},
    **{name: getattr(Request(), name) for name in ("audio_s", "batch", "beams", "new_tokens")},
    "margin_gb": DEFAULT_MARGIN_GB,
}
#: Least and most of each number, and whether it is a whole one.
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "audio_s": (catalog.MIN_AUDIO_S, catalog.VOXTRAL_MAX_ANSWER_S, False),
    "batch": (1, MOST, True),
    "beams": (1, MOST, True),
    "new_tokens": (1, 100_000, True),
    "margin_gb": (0, 1_000, False),
}


def facts() -> dict[str, Any]:
    """For JSON."""
    return {
        "cards": {
            own.name: _of(own, CARD)
            | {"workspace_bytes": cublas_workspace_bytes(own.compute_capability)}
            for own in catalog.CARDS.values()
        },
        "backends": {own.name: _of(own, BACKEND) for own in catalog.BACKENDS.values()},
        "whispers": {own.name: _whisper(own) for own in catalog.WHISPERS.values() if own.hub_id},
        "voxtrals": {own.name: _voxtral(own) for own in catalog.VOXTRALS.values() if own.hub_id},
        "whisper_sizes": catalog.WHISPER_SIZES,
        "bytes_per_dtype": BYTES_PER_DTYPE,
        "significand_bits": SIGNIFICAND_BITS,
        "released_bits": RELEASED_BITS,
        "why_later": WHY_LATER,
        "window_s": catalog.WINDOW_S,
        "window_reach_s": catalog.WINDOW_REACH_S,
        "mel_frames_per_window": catalog.MEL_FRAMES_PER_WINDOW,
        "voxtral_tokens_per_window": catalog.VOXTRAL_TOKENS_PER_WINDOW,
        "voxtral_max_answer_s": catalog.VOXTRAL_MAX_ANSWER_S,
        "unsure_beams": catalog.UNSURE_BEAMS,
        "whisper_max_target_positions": catalog.WHISPER_MAX_TARGET_POSITIONS,
        "prompt_tokens": Request().prompt_tokens,
        "spectrogram_window_bytes": spectrogram_bytes(catalog.WINDOW_S),
        "math_bytes_per_score": math_bytes_per_score(),
        "resident_cache_bytes": RESIDENT_CACHE_BYTES,
        "shares": SHARES,
        "first": FIRST,
        "numbers": NUMBERS,
        "moments": MOMENTS,
        "while": WHILE,
        "owners": OWNERS,
        "planner_owners": PLANNER_OWNERS,
        "fit_signs": FIT_SIGNS,
    }


def _of(member: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(member, name) for name in names}


def _whisper(model: WhisperModel) -> dict[str, Any]:
    def weights_and_load(backend: str, dtype: str) -> tuple[int, int]:
        return (
            whisper_weights_bytes(model, backend=backend, dtype=dtype),
            whisper_load_peak_bytes(model, backend=backend, dtype=dtype),
        )

    sizes = {
        own.name: {dtype: weights_and_load(own.name, dtype) for dtype in own.dtypes}
        for own in catalog.BACKENDS.values()
    }
    encoder = _of(model.encoder, ENCODER)
    return {**_of(model, WHISPER), "encoder": encoder, "weights_and_load_bytes": sizes}


def _voxtral(model: VoxtralModel) -> dict[str, Any]:
    sizes = {dtype: voxtral_weights_bytes(model, dtype=dtype) for dtype in catalog.LLM_DTYPES}
    return {
        "encoder": _of(model.encoder, ENCODER),
        "text": _of(model.text, TEXT),
        "weights_bytes": sizes,
    }
