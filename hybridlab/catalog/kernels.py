"""Which kernel computes attention, and what the kernel that materialises scores holds meanwhile."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from hybridlab.catalog.backends import Attention
from hybridlab.catalog.cards import Card

#: `cudnn`, `flash` and `efficient` hold no scores. `math` is torch's fallback, which upcasts to
#: float32; `scores` is CTranslate2's own, which keeps them in the dtype that it computes in.
Kernel = Literal["cudnn", "flash", "efficient", "math", "scores"]


def attention_kernel(
    card: Card,
    dtype: str,
    *,
    attention: Attention = "auto",
    grouped: bool = False,
    masked: bool = False,
    engine: Literal["torch", "ctranslate2"] = "torch",
) -> Kernel:
    """torch's choice for activations of this dtype, or the one that is pinned. `grouped`: K and V
    have fewer heads and are passed so (`enable_gqa`); `masked`: a mask is passed, as for rows of
    unlike length. Tested against torch's own answers on simulated cards of compute capability 7.5
    to 9.0 (`tests/simulation/test_attention.py`)."""
    if engine == "ctranslate2":
        return "scores"
    if attention in ("math", "efficient", "flash"):
        return attention
    if not card.is_gpu:
        return "flash"
    is_half, capability = dtype != "float32", card.compute_capability
    choices: tuple[tuple[Kernel, bool], ...] = (
        ("cudnn", is_half and capability >= (9, 0)),
        ("flash", is_half and capability >= (8, 0) and not masked),
        ("efficient", not grouped and (dtype != "bfloat16" or capability >= (8, 0))),
    )
    return next((kernel for kernel, is_taken in choices if is_taken), "math")


@cache
def math_bytes_per_score() -> tuple[int, int, int]:
    """Lowest, expected and highest bytes of torch's math kernel per score, all in float32: scores,
    their softmax, and a flag for rows that are masked whole (4 + 4 + 1, measured with torch 2.13).
    Older `_safe_softmax` ends in a `where` with a result of its own, 4 more
    (aten/native/transformers/attention.cpp)."""
    try:
        installed = tuple(int(part) for part in version("torch").split(".")[:2])
    except PackageNotFoundError:
        installed = (2, 13)
    return (9, 9, 9) if installed >= (2, 13) else (9, 13, 13)
