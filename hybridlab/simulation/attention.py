"""The card's fused kernels of attention, computed by the CPU's scaled dot product attention."""

from __future__ import annotations

from typing import Any, cast

import torch

aten = torch.ops.aten


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    causal: bool,
    scale: float | None,
) -> torch.Tensor:
    """All of shape (batch, heads, length, head size).

    By the kernels that `scaled_dot_product_attention` chooses from on a CPU, and not by itself: it
    would obey what the caller allowed for the card.
    """
    if query.size(1) != key.size(1) or 0 in (query.numel(), key.numel()):
        out, _ = aten._scaled_dot_product_attention_math(
            query, key, value, bias, 0.0, causal, scale=scale, enable_gqa=True
        )
    else:
        out, _ = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scale
        )
    return cast(torch.Tensor, out)


def _attend_by_length(*inputs: torch.Tensor, **options: Any) -> torch.Tensor:
    """All of shape (batch, length, heads, head size)."""
    return _attend(*(x.transpose(1, 2) for x in inputs), **options).transpose(1, 2)


def _refuse(kernel: str, **asked: Any) -> None:
    """No values where a kernel is asked for what the CPU's attention cannot do."""
    unknown = [name for name, value in asked.items() if value is not None and value != 0.0]
    if unknown:
        raise NotImplementedError(f"no values of {kernel} attention with {', '.join(unknown)}")


def efficient(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
    dropout_p: float,
    custom_mask_type: int,
    compute_log_sumexp: bool = False,
    *,
    scale: float | None = None,
    **asked: Any,
) -> tuple[torch.Tensor]:
    """The output of `aten::_efficient_attention_forward`."""
    _refuse("efficient", cu_seqlens_q=cu_seqlens_q, dropout_p=dropout_p, **asked)
    causal = custom_mask_type == 1
    return (_attend_by_length(query, key, value, bias=bias, causal=causal, scale=scale),)


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cum_seq_q: torch.Tensor | None,
    cum_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    **asked: Any,
) -> tuple[torch.Tensor]:
    """The output of `aten::_flash_attention_forward`."""
    _refuse("flash", cum_seq_q=cum_seq_q, dropout_p=dropout_p, **asked)
    return (_attend_by_length(query, key, value, causal=is_causal, scale=scale),)


def cudnn(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | None,
    cum_seq_q: torch.Tensor | None,
    cum_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[torch.Tensor]:
    """The output of `aten::_cudnn_attention_forward`."""
    _refuse("cuDNN's", cum_seq_q=cum_seq_q, dropout_p=dropout_p)
    return (_attend(query, key, value, bias=attn_bias, causal=is_causal, scale=scale),)
