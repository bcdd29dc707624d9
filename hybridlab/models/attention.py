"""Which kernel computes attention, pinned for the calls inside a context.

transformers passes `enable_gqa=True` to SDPA for Voxtral's grouped heads. Compute capability 7.5
has no fused kernel for that and falls to the math kernel, which upcasts to float32 and builds all
scores; repeating the KV heads first (`expanded_kv`) lets the memory-efficient kernel in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hybridlab import catalog
from hybridlab.catalog import Attention, VoxtralModel
from hybridlab.catalog.kernels import attention_kernel
from hybridlab.devices import Device
from hybridlab.errors import UnavailableError

if TYPE_CHECKING:
    import torch

#: The kernels that can be pinned: what they are called in messages, and by torch.
KERNELS = {
    "math": ("math", "MATH"),
    "efficient": ("memory-efficient", "EFFICIENT_ATTENTION"),
    "flash": ("flash", "FLASH_ATTENTION"),
}
#: How SDPA begins its refusal of a call that no allowed kernel takes.
REFUSALS = ("No available kernel", "No viable backend")
#: Enough positions for a prompt that is more than a token.
TRIED_POSITIONS = 8


def check_attention(
    attention: Attention, device: Device, *, model: VoxtralModel, dtype: torch.dtype
) -> None:
    """`UnavailableError` where torch has no such kernel for what this model computes on this
    device: a window of the encoder, a prompt, and a token after it are tried in miniature, since
    the kernels' rules differ between devices, dtypes and versions of torch."""
    if attention not in KERNELS:
        return
    encoder, text = model.encoder, model.text
    of_encoder = (encoder.heads, encoder.heads, encoder.d_model // encoder.heads)
    of_decoder = (text.heads, text.kv_heads, text.head_dim)
    with pinned_attention(attention):
        _try(*of_encoder, device=device, dtype=dtype, queries=TRIED_POSITIONS, causal=False)
        _try(*of_decoder, device=device, dtype=dtype, queries=TRIED_POSITIONS, causal=True)
        _try(*of_decoder, device=device, dtype=dtype, queries=1, causal=False)


def _try(
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    device: Device,
    dtype: torch.dtype,
    queries: int,
    causal: bool,
) -> None:
    import torch

    def rows(heads: int, length: int) -> torch.Tensor:
        return torch.zeros(1, heads, length, head_dim, dtype=dtype, device=device.torch_name)

    keys = rows(kv_heads, TRIED_POSITIONS)
    with torch.inference_mode():
        torch.nn.functional.scaled_dot_product_attention(
            rows(heads, queries), keys, keys, is_causal=causal, enable_gqa=heads != kv_heads
        )


def check_card(attention: Attention, card: str) -> None:
    """`UnavailableError` where the card that is stood in for has no such kernel."""
    if attention == "flash" and not has_fused_grouped(card):
        raise UnavailableError(
            f"this case stands for a {card}, which has no FlashAttention kernel (compute "
            "capability 8.0 and up); use attention auto, math or expanded_kv"
        )


def has_fused_grouped(card: str) -> bool:
    """Whether grouped heads of 16 bit have a fused kernel on this card; True for ''."""
    return not card or attention_kernel(catalog.card(card), "float16", grouped=True) != "math"


@contextmanager
def kernels_of(card: str) -> Iterator[None]:
    """Choose inside among the kernels that this card has, on a newer one as well. Before compute
    capability 8.0 those are memory-efficient attention, which takes no grouped heads, and math for
    them: the choice that `auto` has there, for the encoder too."""
    if has_fused_grouped(card):
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield


@contextmanager
def pinned_attention(attention: Attention) -> Iterator[None]:
    """Compute attention so inside; not for two threads that want different kernels.
    `UnavailableError` where a call finds no such kernel, as FlashAttention's for a padded batch."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers.integrations import sdpa_attention

    if attention == "auto":
        yield
    elif attention == "expanded_kv":
        grouped = sdpa_attention.use_gqa_in_sdpa
        sdpa_attention.use_gqa_in_sdpa = lambda *_, **__: False
        try:
            yield
        finally:
            sdpa_attention.use_gqa_in_sdpa = grouped
    else:
        name, backend = KERNELS[attention]
        try:
            with sdpa_kernel(SDPBackend.__members__[backend]):
                yield
        except RuntimeError as error:
            if not str(error).startswith(REFUSALS):
                raise
            raise UnavailableError(
                f"torch has no {name} attention kernel for these heads, dtype and mask on this "
                "device; use attention auto, math or expanded_kv"
            ) from error
