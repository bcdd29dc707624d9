"""A card that stands in for an older one has its choice of attention kernels."""

from __future__ import annotations

import pytest
import torch

from hybridlab.device import resolve_device
from hybridlab.errors import UnavailableError
from hybridlab.tenants.attention import check_card, kernels_of, pinned_attention

HEADS, KEPT_HEADS, LENGTH, WIDTH = 8, 2, 512, 64
SCORES_BYTES = HEADS * LENGTH * LENGTH * 4


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
    device = resolve_device("cuda")
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
