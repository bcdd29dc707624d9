"""A model's weights as one block of host memory, brought in with one copy.

Inference does not change weights, so the host block is the master: bringing in is one copy, letting
go is forgetting the device's block. Nothing is ever copied out.
"""

from __future__ import annotations

import hashlib
import statistics
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybridlab.devices import Device, procfs
from hybridlab.devices.cpu import KEEP_NO_COPY, check_host_memory
from hybridlab.errors import UnavailableError
from hybridlab.units import format_bytes

#: Where a storage may begin in a block: CUDA's own allocations keep this alignment, which fast
#: kernels rely on.
ALIGNMENT_BYTES = 256
#: Copies whose median is the link's own speed.
LINK_COPIES = 5
#: So many parameters are looked at after a copy, and so many bytes of each: one kernel's work.
WATCHED, WATCHED_BYTES = 4, 251


@dataclass(frozen=True)
class TensorView:
    """A tensor's place in its storage: offset and strides in elements."""

    tensor: Tensor
    offset: int
    size: torch.Size
    stride: tuple[int, ...]

    def point_to(self, storage: torch.UntypedStorage, at_bytes: int) -> None:
        """Let the tensor live in this storage, whose byte `at_bytes` its own used to begin at."""
        start = at_bytes // self.tensor.element_size() + self.offset
        fresh = torch.empty(0, dtype=self.tensor.dtype, device=storage.device)
        self.tensor.data = fresh.set_(storage, start, self.size, self.stride)


@dataclass(frozen=True)
class StorageSlice:
    """One storage of the module: where it lies in a block, and the tensors that look into it."""

    offset: int
    n_bytes: int
    views: tuple[TensorView, ...]

    def point_to(self, storage: torch.UntypedStorage, at_bytes: int) -> None:
        for view in self.views:
            view.point_to(storage, at_bytes)

    def let_go(self, device: str) -> None:
        """Leave its tensors without memory; to use one then is an error, never a wrong number."""
        for view in self.views:
            view.tensor.data = torch.empty(0, dtype=view.tensor.dtype, device=device)


def layout(module: nn.Module) -> list[StorageSlice]:
    """Every storage of parameters and buffers once, one behind the other, aligned.

    Tied tensors and views of one storage share a slot. Sparse tensors (openai-whisper's alignment
    heads, some hundred bytes) have no storage and stay where they are.
    """
    tensors: dict[int, Tensor] = {
        id(tensor): tensor
        for tensor in (*module.parameters(), *module.buffers())
        if not tensor.is_sparse and tensor.untyped_storage().nbytes()
    }
    by_storage: dict[int, list[Tensor]] = {}
    for tensor in tensors.values():
        by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    slots, end = [], 0
    for sharing in by_storage.values():
        offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        n_bytes = sharing[0].untyped_storage().nbytes()
        views = tuple(TensorView(t, int(t.storage_offset()), t.shape, t.stride()) for t in sharing)
        slots.append(StorageSlice(offset, n_bytes, views))
        end = offset + n_bytes
    return slots


class WeightBuffer:
    """Owns the weights of a loaded module; `here` says whether they are on the device now.

    After construction they are away: their tensors are empty, and the device's memory is free.
    """

    def __init__(self, module: nn.Module, device: Device) -> None:
        """`UnavailableError` where the host has no room for the copy."""
        self.device = device
        self.slots = layout(module)
        self.n_bytes = self.slots[-1].offset + self.slots[-1].n_bytes if self.slots else 0
        self._block: Tensor | None = None
        check_host_memory(self.n_bytes, device)
        self.host = host_block(self.n_bytes)
        for slot in self.slots:
            master = self.host[slot.offset : slot.offset + slot.n_bytes]
            master.copy_(bytes_of(slot.views[0].tensor))
        self.release()

    @property
    def here(self) -> bool:
        return self._block is not None

    def copy_in(self, block: Tensor) -> None:
        """One copy of all weights into `block` (uint8 on the device, at least `n_bytes` long),
        without waiting for a device that copies by itself.

        Whatever interrupts it leaves the weights away and the module ready for another try.
        """
        block[: self.n_bytes].copy_(self.host, non_blocking=True)
        try:
            for slot in self.slots:
                slot.point_to(block.untyped_storage(), slot.offset)
            self._block = block
        except BaseException:
            self.release()
            raise

    def close(self) -> None:
        """Forget both copies; the module's weights are gone for good."""
        self.release()
        self.host = torch.empty(0, dtype=torch.uint8)
        self.slots = []

    def release(self) -> None:
        """Forget the device's block; it is free unless the caller keeps it."""
        self._block = None
        for slot in self.slots:
            slot.let_go(self.device.torch_name)


def bytes_of(tensor: Tensor) -> Tensor:
    """The whole storage of a tensor as uint8."""
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return flat.set_(tensor.untyped_storage())  # type: ignore[call-overload,no-any-return]


# ----------------------------------------------------------------------------------------- blocks


def pinned_bytes(n_bytes: int) -> int:
    """What torch's `pin_memory` takes of the host for a tensor: the next power of two."""
    return 1 << max(0, n_bytes - 1).bit_length()


def host_block(n_bytes: int) -> Tensor:
    """Exactly so many bytes of host memory, every page in place."""
    block = torch.empty(n_bytes, dtype=torch.uint8)
    procfs.advise_huge_pages(block.data_ptr(), n_bytes)
    block[:: procfs.page_bytes()].fill_(0)
    return block


def device_block(n_bytes: int, device: Device) -> Tensor:
    """So many bytes on the device, every page in place: what faults cost is paid here, not in the
    copy."""
    if device.is_host:
        return host_block(n_bytes)
    return torch.empty(n_bytes, dtype=torch.uint8, device=device.torch_name)


class PinnedMemory:
    """Keeps a host block in place, so that the device reads it at the link's full speed.

    Registers exactly the block's bytes: torch's `pin_memory` would round them up to a power of two.
    """

    def __init__(self, block: Tensor) -> None:
        """`UnavailableError` where the driver refuses."""
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        code = int(runtime.cudaHostRegister(block.data_ptr(), block.nbytes, 0))
        if code:
            consume_last_error()
            raise not_pinned(block.nbytes, f"CUDA error {code}")
        # holds the block until it is unregistered, also where `close` is not called
        self._unpin = weakref.finalize(self, _unregister, runtime, block)

    def close(self) -> None:
        self._unpin()


def _unregister(runtime: Any, block: Tensor) -> None:
    code = int(runtime.cudaHostUnregister(block.data_ptr()))
    if code:
        consume_last_error()
        raise RuntimeError(f"host memory could not be unpinned (CUDA error {code})")


def not_pinned(n_bytes: int, reason: str) -> UnavailableError:
    return UnavailableError(
        f"the driver did not pin {format_bytes(n_bytes)} of host memory ({reason}); raise "
        f"`ulimit -l` or the container's memory, or {KEEP_NO_COPY}"
    )


def consume_last_error() -> None:
    """After a call of the CUDA runtime that was refused: its error waits for whoever asks next,
    which is the check behind the next kernel. torch's binding cannot ask; a kernel here does."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    with suppress(torch.AcceleratorError):
        torch.zeros(1, device="cuda")


# ------------------------------------------------------------------------------------------- link


def link_bytes_per_s(source: Tensor, target: Tensor, device: Device) -> float:
    """The link's own speed: a plain copy of `target.nbytes` bytes from memory of the kind that the
    weights wait in, median over `LINK_COPIES` after one that is not counted. Where the host is the
    device and the block fits its caches, that is their speed, which a swap finds cold."""
    seconds = []
    for _ in range(LINK_COPIES + 1):
        device.synchronize()
        began = time.perf_counter()
        target.copy_(source[: target.nbytes], non_blocking=True)
        device.synchronize()
        seconds.append(time.perf_counter() - began)
    return target.nbytes / statistics.median(seconds[1:])


class Fingerprint:
    """A few values of a module's largest parameters, to see whether a copy of them arrived."""

    def __init__(self, module: nn.Module) -> None:
        self._watched = sorted(module.parameters(), key=lambda tensor: tensor.nbytes)[-WATCHED:]
        self._expected = self._read()

    def matches(self) -> bool:
        """Whether they are what they were, read from where they lie now."""
        return torch.equal(self._read(), self._expected)

    @torch.no_grad()
    def _read(self) -> Tensor:
        flat = [tensor.flatten().view(torch.uint8) for tensor in self._watched]
        return torch.cat([values[:: -(-values.numel() // WATCHED_BYTES)] for values in flat]).cpu()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the names and bytes of all parameters and buffers, wherever they lie: equal for
    bit-equal weights only."""
    found = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found.update(name.encode())
        dense = tensor.detach().to_dense().cpu().contiguous()
        if dense.numel():
            found.update(dense.view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
