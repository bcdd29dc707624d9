"""Attention kinds: one text, or a skip with its reason."""

from __future__ import annotations

import pytest
import torch

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice, Device
from hybridlab.devices.cuda import CudaDevice
from hybridlab.errors import UnavailableError
from hybridlab.models import make_llm
from hybridlab.models.attention import (
    check_attention,
    check_card,
    kernels_of,
    pinned_attention,
)
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec

POCKET = catalog.voxtral("pocket")
#: Of the heads below, and the bytes of all their scores in float32.
HEADS, KEPT_HEADS, LENGTH, WIDTH = 8, 2, 512, 64
SCORES_BYTES = HEADS * LENGTH * LENGTH * 4


def said(attention: str, device: Device, dtype: str) -> str:
    model = make_llm(spec("pocket", dtype=dtype, attention=attention), device)
    model.load()
    try:
        return model.transcribe([load_clips()[0].samples()], TranscribeOptions(max_new_tokens=16))[
            0
        ].text
    finally:
        model.unload()


def test_a_kernel_that_a_cpu_lacks_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UnavailableError, match="no memory-efficient attention kernel"):
        check_attention("efficient", CpuDevice(), model=POCKET, dtype=torch.float32)
    for kind in ("auto", "math", "flash", "expanded_kv"):
        check_attention(kind, CpuDevice(), model=POCKET, dtype=torch.float32)  # type: ignore[arg-type]


def test_a_refusal_in_mid_request_is_a_lack_and_other_faults_stay_faults() -> None:
    rows = torch.zeros(1, 4, 8, 32)
    with (
        pytest.raises(UnavailableError, match="use attention auto, math or expanded_kv"),
        pinned_attention("efficient"),
    ):
        torch.nn.functional.scaled_dot_product_attention(rows, rows, rows)
    with (
        pytest.raises(RuntimeError, match="size for first two dimensions"),
        pinned_attention("math"),
    ):
        torch.nn.functional.scaled_dot_product_attention(rows, rows[..., :16], rows)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_each_kind_says_the_same_on_a_gpu_or_is_refused_with_a_reason(dtype: str) -> None:
    device = CudaDevice()
    auto = said("auto", device, dtype)
    assert auto
    for kind in catalog.ATTENTIONS:
        try:
            assert said(kind, device, dtype) == auto, kind
        except UnavailableError as lack:
            assert kind in ("efficient", "flash"), kind
            assert "attention kernel for these heads" in str(lack)


@pytest.mark.gpu
def test_grouped_heads_have_no_memory_efficient_kernel() -> None:
    with pytest.raises(UnavailableError, match="no memory-efficient attention kernel"):
        said("efficient", CudaDevice(), "float16")


@pytest.mark.gpu
def test_flash_attention_takes_no_float32() -> None:
    device = CudaDevice()
    with pytest.raises(UnavailableError, match="no flash attention kernel"):
        check_attention("flash", device, model=POCKET, dtype=torch.float32)
    check_attention("math", device, model=POCKET, dtype=torch.float32)


def enabled() -> tuple[bool, bool, bool]:
    from torch.backends import cuda

    return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()


def test_before_compute_capability_8_there_is_no_flash_attention() -> None:
    before = enabled()
    with kernels_of("t4"):
        assert enabled() == (False, True, True)
        with pinned_attention("math"):
            assert enabled() == (False, False, True)
        assert enabled() == (False, True, True)
    for card in ("", "l4"):
        with kernels_of(card):
            assert enabled() == before
    assert enabled() == before


def test_a_kernel_that_the_card_lacks_is_a_lack() -> None:
    with pytest.raises(UnavailableError, match="stands for a t4"):
        check_card("flash", "t4")
    for attention, card in (("flash", "l4"), ("flash", ""), ("math", "t4")):
        check_card(attention, card)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_grouped_heads_build_all_scores_as_on_a_t4_and_others_do_not() -> None:
    device = CudaDevice()
    dtype = {"dtype": torch.float16, "device": device.name}
    query = torch.zeros(1, HEADS, LENGTH, WIDTH, **dtype)  # type: ignore[call-overload]
    key = torch.zeros(1, KEPT_HEADS, LENGTH, WIDTH, **dtype)  # type: ignore[call-overload]

    def peak_bytes(keys: torch.Tensor, *, grouped: bool) -> int:
        device.synchronize()
        device.reset_peak()
        before = device.used_bytes()
        with torch.inference_mode(), kernels_of("t4"):
            torch.nn.functional.scaled_dot_product_attention(query, keys, keys, enable_gqa=grouped)
        device.synchronize()
        return device.peak_bytes() - before

    peak_bytes(key, grouped=True)  # a workspace comes with the first product
    assert peak_bytes(key, grouped=True) >= SCORES_BYTES
    assert peak_bytes(query, grouped=False) < SCORES_BYTES


def test_the_kernel_that_a_prompt_got_is_told() -> None:
    assert kernel_taken("auto") == "flash"
    assert kernel_taken("math") == "math"
    assert kernel_taken("auto", card="t4") == "math"  # a CPU has no memory-efficient kernel


@pytest.mark.gpu
def test_on_a_card_the_kernel_is_the_card_s() -> None:
    assert kernel_taken("math", CudaDevice(), "float16") == "math"
    assert kernel_taken("auto", CudaDevice(), "float16", card="t4") == "math"
    assert kernel_taken("expanded_kv", CudaDevice(), "float16", card="t4") == "efficient"


def kernel_taken(
    attention: str, device: Device | None = None, dtype: str = "float32", card: str = ""
) -> str | None:
    """By a whole request, and by one whose prompt is prefilled for several jobs."""
    own = spec("pocket", dtype=dtype, attention=attention, card=card)
    model = make_llm(own, device or CpuDevice())
    model.load()
    samples = load_clips()[0].samples()
    assert model.attention_kernel is None
    model.transcribe([samples], TranscribeOptions(max_new_tokens=2))
    told, model.attention_kernel = model.attention_kernel, None
    model.prefill(samples)
    assert model.attention_kernel == told
    model.unload()
    return told
