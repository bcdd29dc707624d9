"""Which kernel computes attention, pinned for the calls inside a context.

transformers passes `enable_gqa=True` to SDPA for Voxtral's grouped heads. Compute capability 7.5
has no fused kernel for that and falls to the math kernel, which upcasts to float32 and builds all
scores; repeating the KV heads first (`expanded_kv`) lets the memory-efficient kernel in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hybridlab import catalog
from hybridlab.catalog import Attention
from hybridlab.device import Device
from hybridlab.errors import UnavailableError

#: The first compute capability with a FlashAttention kernel in PyTorch.
FLASH_CAPABILITY = (8, 0)


def check_attention(attention: Attention, device: Device) -> None:
    """`UnavailableError` where this device has no such kernel."""
    if device.kind == "cpu" and attention == "efficient":
        raise UnavailableError(
            "PyTorch has no memory-efficient attention kernel on a CPU; use attention auto, math, "
            "flash or expanded_kv"
        )
    if device.kind == "cuda" and attention == "flash":
        import torch

        if torch.cuda.get_device_capability(device.name) < FLASH_CAPABILITY:
            raise UnavailableError(
                f"{device.title()} has no FlashAttention kernel (compute capability 8.0 and up); "
                "use attention auto, math, efficient or expanded_kv"
            )


def check_card(attention: Attention, card: str) -> None:
    """`UnavailableError` where the card that is stood in for has no such kernel."""
    if attention == "flash" and not has_fused_grouped(card):
        raise UnavailableError(
            f"this case stands for a {card}, which has no FlashAttention kernel (compute "
            "capability 8.0 and up); use attention auto, math or expanded_kv"
        )


def has_fused_grouped(card: str) -> bool:
    """Whether grouped heads have a fused kernel on this card; True for ''."""
    return not card or catalog.card(card).fused_gqa


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
    """Compute attention so inside; not for two threads that want different kernels."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers.integrations import sdpa_attention

    backends = {
        "math": SDPBackend.MATH,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
    }
    if attention in backends:
        with sdpa_kernel(backends[attention]):
            yield
        return
    if attention == "auto":
        yield
        return
    grouped = sdpa_attention.use_gqa_in_sdpa
    sdpa_attention.use_gqa_in_sdpa = lambda *_, **__: False
    try:
        yield
    finally:
        sdpa_attention.use_gqa_in_sdpa = grouped
