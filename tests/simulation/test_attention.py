"""Which attention kernel torch chooses, told by the bytes that one call takes."""

from __future__ import annotations

import pytest

from tests.simulation.conftest import Bench

CALLS = """
import torch
def call(dtype, queries, heads, dim, causal, grouped):
    q = torch.empty(1, 32 if causal else 20, queries, dim, device="cuda", dtype=getattr(torch, dtype))
    k = torch.empty(1, heads, queries, dim, device="cuda", dtype=q.dtype)
    base = torch.cuda.memory_allocated(); torch.cuda.reset_peak_memory_stats()
    torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=causal, enable_gqa=grouped)
    return (torch.cuda.max_memory_allocated() - base) / 1e6
def calls(dtype):
    return [call(dtype, 1500, 20, 64, False, False), call(dtype, 1508, 8, 128, True, True),
            call(dtype, 1508, 32, 128, True, False)]
said = []
for i in range(torch.cuda.device_count()):
    with torch.cuda.device(i):
        torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")  # the workspace is there
        said.append({dtype: calls(dtype) for dtype in ("float16", "bfloat16", "float32")})
say(cards=said)
"""  # noqa: E501
CARDS = ("t4", "a100-40", "a10g", "l4", "h100")
#: Heads all alike; grouped, causal; the same expanded. The math kernel builds the scores.
FUSED, MATH = "fused", "math"
NEWER = {
    "float16": [FUSED, FUSED, FUSED],
    "bfloat16": [FUSED, FUSED, FUSED],
    "float32": [FUSED, MATH, FUSED],
}
TURING = {
    "float16": [FUSED, MATH, FUSED],
    "bfloat16": [MATH, MATH, MATH],
    "float32": [FUSED, MATH, FUSED],
}


def test_the_kernel_follows_the_compute_capability_and_dtype(bench: Bench) -> None:
    bench.create(*CARDS)
    cards = bench.run(CALLS, CUDA_DEVICE_ORDER="PCI_BUS_ID")["cards"]
    for card, said in zip(CARDS, cards, strict=True):
        chosen = {
            dtype: [MATH if megabytes > 400 else FUSED for megabytes in calls]
            for dtype, calls in said.items()
        }
        assert chosen == (TURING if card == "t4" else NEWER), card
        assert all(m < 30 for calls in said.values() for m in calls if m <= 400), card
    t4 = cards[0]  # the allocator may hand out blocks that are up to 1 MiB too large
    assert t4["float16"] == pytest.approx([3.8, 779, 12.4], rel=0.03, abs=1.05)
    assert t4["bfloat16"] == pytest.approx([436, 779, 766], rel=0.03, abs=1.05)
