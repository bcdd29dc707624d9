"""Which attention kernel torch chooses, and the bytes that its math kernel takes."""

from __future__ import annotations

import itertools

import pytest

from hybridlab import catalog
from hybridlab.catalog.kernels import attention_kernel
from hybridlab.planner.activations import math_bytes
from tests.simulation.conftest import Bench

CARDS = ("t4", "a100-40", "a10g", "l4", "h100")
DTYPES = ("float16", "bfloat16", "float32")
CALLS = """
import itertools, torch
from torch.nn.attention import SDPBackend
def choice(dtype, grouped, masked):
    q = torch.empty(1, 32, 383, 128, device="cuda", dtype=getattr(torch, dtype))
    k = torch.empty(1, 8 if grouped else 32, 383, 128, device="cuda", dtype=q.dtype)
    mask = torch.empty(1, 1, 383, 383, device="cuda", dtype=torch.bool) if masked else None
    chosen = torch._fused_sdp_choice(q, k, k, mask, 0.0, not masked, enable_gqa=grouped)
    return SDPBackend(chosen).name
said = []
for i in range(torch.cuda.device_count()):
    with torch.cuda.device(i):
        calls = itertools.product(("float16", "bfloat16", "float32"), (False, True), (False, True))
        said.append([choice(*call) for call in calls])
say(cards=said)
"""
TAKEN = """
import torch
def taken(dtype, heads, kv_heads, dim, causal):
    q = torch.empty(2, heads, 1508, dim, device="cuda", dtype=getattr(torch, dtype))
    k = torch.empty(2, kv_heads, 1508, dim, device="cuda", dtype=q.dtype)
    base = torch.cuda.memory_allocated(); torch.cuda.reset_peak_memory_stats()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.nn.functional.scaled_dot_product_attention(
            q, k, k, is_causal=causal, enable_gqa=heads != kv_heads)
    return torch.cuda.max_memory_allocated() - base
torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")  # the workspace is there
say(taken={dtype: [taken(dtype, 20, 20, 64, False), taken(dtype, 32, 8, 128, True)]
           for dtype in ("float16", "bfloat16", "float32")})
"""


def test_the_kernel_is_the_catalogs(bench: Bench) -> None:
    cards = []
    for machine in (CARDS[:-1], CARDS[-1:]):  # torch asks once a process whether it prefers cuDNN
        bench.create(*machine)
        cards += bench.run(CALLS, CUDA_DEVICE_ORDER="PCI_BUS_ID")["cards"]
    names = {"EFFICIENT_ATTENTION": "efficient", "FLASH_ATTENTION": "flash"}
    names |= {"CUDNN_ATTENTION": "cudnn", "MATH": "math"}
    calls = list(itertools.product(DTYPES, (False, True), (False, True)))
    for card, said in zip(CARDS, cards, strict=True):
        known = catalog.card(card)
        for (dtype, grouped, masked), chosen in zip(calls, said, strict=True):
            told = attention_kernel(known, dtype, grouped=grouped, masked=masked)
            assert told == names[chosen], (card, dtype, grouped, masked)


def test_the_math_kernel_takes_what_is_predicted(bench: Bench) -> None:
    bench.create("t4")
    taken = bench.run(TAKEN)["taken"]
    for dtype, (of_encoder, of_prompt) in taken.items():
        width = 4 if dtype == "float32" else 2
        known = {"rows": 2, "length": 1508, "width": width}
        encoder = math_bytes(**known, heads=20, kv_heads=20, head_dim=64, causal=False)
        prompt = math_bytes(**known, heads=32, kv_heads=8, head_dim=128, causal=True)
        # the allocator may hand out blocks that are up to 1 MiB too large
        assert of_encoder == pytest.approx(encoder.expected, rel=0.005, abs=2**21), dtype
        assert of_prompt == pytest.approx(prompt.expected, rel=0.005, abs=2**21), dtype
