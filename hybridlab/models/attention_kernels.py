"""Which kernel SDPA takes for a prompt, asked of torch at the very call."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode


class KernelRecorder(TorchFunctionMode):
    """Inside, the kernels that attention over a prompt gets, in `seen`: 'math', 'flash',
    'efficient', 'cudnn'.

    At each call torch is asked with the call's own arguments, by the function that SDPA itself
    chooses with (`_fused_sdp_choice`): what is pinned, masks, heads and dtypes count. A prompt has
    more than one position and does not look ahead, by its mask or by the causal one. Costs a
    microsecond for each of torch's functions: for a request whose latency is not quoted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and _is_prompt(args, given):
            chosen = SDPBackend(torch._fused_sdp_choice(*args, **given))
            name = chosen.name.removesuffix("_ATTENTION").lower()
            if name not in self.seen:
                self.seen.append(name)
        return func(*args, **given)


def _is_prompt(args: Any, given: dict[str, Any]) -> bool:
    query = args[0] if args else given["query"]
    masked = given.get("attn_mask") is not None or bool(given.get("is_causal"))
    return masked and query.shape[-2] > 1
