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
    engine: str = "torch",
) -> Kernel:
    """torch's choice for activations of this dtype. `grouped`: fewer heads in K and V, passed as
    they are (`enable_gqa`); `masked`: a mask is passed, as for a padded batch. Asked of torch itself
    for every such call on simulated cards of compute capability 7.5 to 9.0
    (`tests/simulation/test_attention.py`)."""
    if engine == "ctranslate2":
        return "scores"
    if attention in ("math", "efficient", "flash"):
        return attention
    if not card.is_gpu:
        return "flash"
    if dtype != "float32" and card.compute_capability >= (9, 0):
        return "cudnn"
    if dtype != "float32" and card.compute_capability >= (8, 0) and not masked:
        return "flash"
    if not grouped and (dtype != "bfloat16" or card.compute_capability >= (8, 0)):
        return "efficient"
    return "math"


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
