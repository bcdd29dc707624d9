"""The memory of a simulated card, which is memory of this host, as tensors of the CPU."""

from __future__ import annotations

from functools import cache

import torch

CPU = torch.device("cpu")

#: A floating-point tensor whose whole storage is at most this large is computed in every mode:
#: lengths, ratios and scores from which sizes are made, but no weight and no hidden state.
SMALL_STORAGE_BYTES = 4096

_START = 64  # not 0: a tensor at address 0 counts as one without memory
_END = 1 << 47  # user space of a 64-bit Linux


@cache
def _address_space(dtype: torch.dtype) -> torch.Tensor:
    """All memory of this process as the storage of one tensor, which has no elements itself."""
    storage = torch._C._construct_storage_from_data_pointer(_START, CPU, _END - _START)
    with torch.inference_mode(False):  # the first to ask may be in inference mode, the next not
        return torch.empty(0, dtype=dtype, device=CPU).set_(storage, 0, (0,), (1,))


#: Aliases own nothing, and a block of the card is used again and again.
_aliases: dict[tuple[int, torch.dtype, torch.Size, tuple[int, ...]], torch.Tensor] = {}
_KEPT_ALIASES = 16384


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the card as one of the CPU over the same memory."""
    if tensor.layout is not torch.strided:
        return _sparse_alias(tensor)
    place = (tensor.data_ptr(), tensor.dtype, tensor.size(), tensor.stride())
    same = _aliases.get(place)
    if same is None:
        same = _new_alias(*place)
    if tensor.is_conj():
        same = same.conj()
    return same._neg_view() if tensor.is_neg() else same


def _new_alias(
    address: int, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]
) -> torch.Tensor:
    if not address:  # no elements
        return torch.empty_strided(shape, stride, dtype=dtype, device=CPU)
    if len(_aliases) >= _KEPT_ALIASES:
        _aliases.clear()
    offset = (address - _START) // dtype.itemsize
    same = _address_space(dtype).as_strided(shape, stride, offset)
    _aliases[address, dtype, shape, stride] = same
    return same


def _sparse_alias(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.sparse_coo:
        raise NotImplementedError(f"no values of {tensor.layout} tensors on a simulated card")
    return torch.sparse_coo_tensor(
        alias(tensor._indices()),
        alias(tensor._values()),
        tensor.size(),
        is_coalesced=tensor.is_coalesced(),
        check_invariants=False,
    )


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU, put on the card."""
    if tensor.layout is torch.sparse_coo:
        return torch.sparse_coo_tensor(
            sent(tensor._indices(), device),
            sent(tensor._values(), device),
            tensor.size(),
            is_coalesced=tensor.is_coalesced(),
            check_invariants=False,
        )
    card = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    alias(card).copy_(tensor)
    return card


def is_real_number(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds floating-point or complex numbers, of which `sizes` computes few."""
    return tensor.is_floating_point() or tensor.is_complex()


def is_known(tensor: torch.Tensor) -> bool:
    """Whether mode `sizes` knows what a tensor holds."""
    if not (tensor.is_cuda and is_real_number(tensor)):
        return True
    if tensor.layout is not torch.strided:
        return is_known(tensor._values())
    return tensor.untyped_storage().nbytes() <= SMALL_STORAGE_BYTES


def zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    """The zeros as which an unknown tensor counts: one element of memory, whatever its shape."""
    return torch.zeros((), dtype=tensor.dtype, device=CPU).expand(tensor.size())
