"""The weight buffer: layout, aliasing, exact bytes, interrupted copies, pinning."""

from __future__ import annotations

import ctypes
import gc
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hybridlab.devices import CpuDevice
from hybridlab.devices.cpu import check_host_memory
from hybridlab.errors import UnavailableError
from hybridlab.models.base import storage_bytes
from hybridlab.strategies.offload import weight_buffer
from hybridlab.strategies.offload.weight_buffer import (
    ALIGNMENT_BYTES,
    PinnedMemory,
    WeightBuffer,
    device_block,
    host_block,
    layout,
    weights_digest,
)

CPU = CpuDevice()


class Odd(nn.Module):
    """Everything that makes weights hard to move."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight  # one Parameter, two names
        base = torch.arange(24, dtype=torch.float32)
        self.register_buffer("whole", base)
        self.register_buffer("window", base[4:10])  # a view with an offset
        self.register_buffer("turned", base.view(4, 6).t(), persistent=False)  # not contiguous
        self.low = nn.Parameter(torch.randn(3, 3, dtype=torch.float16))
        self.register_buffer("flag", torch.tensor([True]))
        self.register_buffer("heads", torch.eye(2).to_sparse())
        self.register_buffer("nothing", torch.empty(0))


def values(module: nn.Module) -> dict[str, Any]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.to_dense().tolist() for name, tensor in named}


def test_each_storage_is_laid_out_once_and_aligned() -> None:
    module = Odd()
    slots = layout(module)
    assert len(slots) == 4  # embed with head, whole with its two views, low, flag
    assert sum(slot.n_bytes for slot in slots) == storage_bytes(module)
    assert all(slot.offset % ALIGNMENT_BYTES == 0 for slot in slots)
    for before, after in itertools.pairwise(slots):
        assert before.offset + before.n_bytes <= after.offset


def test_the_blocks_are_exactly_as_large_as_the_layout() -> None:
    made = WeightBuffer(Odd(), CPU)
    last = made.slots[-1]
    assert made.n_bytes == last.offset + last.n_bytes == made.host.nbytes
    assert host_block(12_345).nbytes == device_block(12_345, CPU).nbytes == 12_345


def test_weights_come_back_as_they_were_with_their_aliases() -> None:
    module = Odd()
    before, strides = values(module), module.turned.stride()
    made = WeightBuffer(module, CPU)
    made.copy_in(device_block(made.n_bytes, CPU))
    assert values(module) == before
    assert module.head.weight is module.embed.weight
    assert module.turned.stride() == strides
    module.whole[5] = -1.0
    assert module.window[1] == -1.0
    assert module.turned[5, 0] == -1.0
    assert module.heads.is_sparse


def test_what_is_done_to_the_device_copy_never_reaches_the_master() -> None:
    module = Odd()
    before = values(module)
    made = WeightBuffer(module, CPU)
    made.copy_in(device_block(made.n_bytes, CPU))
    with torch.no_grad():
        module.low.fill_(9)
    made.release()
    made.copy_in(device_block(made.n_bytes, CPU))
    assert values(module) == before


def test_weights_that_are_away_hold_no_memory_and_cannot_be_used() -> None:
    module = Odd()
    made = WeightBuffer(module, CPU)
    assert not made.here
    assert storage_bytes(module) == 0
    with pytest.raises(RuntimeError):
        module.embed(torch.tensor([1]))
    block = device_block(made.n_bytes, CPU)
    made.copy_in(block)
    assert made.here
    assert storage_bytes(module) == made.n_bytes
    made.release()
    looking = [view.tensor for slot in made.slots for view in slot.views]
    assert {tensor.untyped_storage().data_ptr() for tensor in looking} == {0}


def test_one_block_serves_modules_of_different_size_in_turn() -> None:
    small, large = nn.Linear(3, 3), nn.Linear(40, 40)
    digests = [weights_digest(small), weights_digest(large)]
    buffers = [WeightBuffer(small, CPU), WeightBuffer(large, CPU)]
    block = device_block(max(made.n_bytes for made in buffers), CPU)
    for _ in range(3):
        for module, made, expected in zip((small, large), buffers, digests, strict=True):
            made.copy_in(block)
            assert weights_digest(module) == expected
            made.release()


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["copy", "pointing"])
def test_an_interrupted_copy_leaves_the_weights_away_and_loadable(
    fault: type[BaseException], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Odd()
    before = weights_digest(module)
    made = WeightBuffer(module, CPU)
    if where == "copy":
        block: Any = _HalfWritten(fault)
        with pytest.raises(fault):
            made.copy_in(block)
    else:
        point, seen = weight_buffer.TensorView.point_to, []

        def interrupted(self: weight_buffer.TensorView, *to: Any) -> None:
            seen.append(self)
            if len(seen) == 3:
                raise fault
            point(self, *to)

        monkeypatch.setattr(weight_buffer.TensorView, "point_to", interrupted)
        with pytest.raises(fault):
            made.copy_in(device_block(made.n_bytes, CPU))
        monkeypatch.undo()
    assert not made.here
    assert storage_bytes(module) == 0
    made.copy_in(device_block(made.n_bytes, CPU))
    assert weights_digest(module) == before


class _HalfWritten:
    """A block whose copy is interrupted in the middle."""

    def __init__(self, fault: type[BaseException]) -> None:
        self.fault = fault

    def __getitem__(self, _: slice) -> _HalfWritten:
        return self

    def copy_(self, source: torch.Tensor, *, non_blocking: bool) -> None:
        torch.empty(source.nbytes // 2, dtype=torch.uint8).copy_(source[: source.nbytes // 2])
        raise self.fault


def test_closing_forgets_both_copies() -> None:
    module = Odd()
    made = WeightBuffer(module, CPU)
    made.copy_in(device_block(made.n_bytes, CPU))
    made.close()
    assert made.host.nbytes == 0
    assert storage_bytes(module) == 0


def test_the_link_is_measured_on_the_block_itself() -> None:
    source, target = host_block(1 << 20), device_block(1 << 20, CPU)
    source.fill_(7)
    assert weight_buffer.link_bytes_per_s(source, target, CPU) > 0
    assert bool((target == 7).all())


# ---------------------------------------------------------------------------------------- pinning


class FakeCudart:
    """Counts what it is asked, as `torch.cuda.cudart()` would be."""

    code = 0

    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        self.calls: list[tuple[Any, ...]] = []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        self.calls.append(("register", address, size, flags))
        if self.code == 0:
            self.registered[address] = size
        return self.code

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.calls.append(("unregister", address))
        del self.registered[address]
        return 0


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    """The driver's part, counted or left out."""
    fake = FakeCudart()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
    return fake


def test_exactly_the_blocks_bytes_are_pinned_and_unpinned_once(cudart: FakeCudart) -> None:
    block = host_block(100_001)
    pin = PinnedMemory(block)
    assert cudart.calls == [("register", block.data_ptr(), 100_001, 0)]
    pin.close()
    pin.close()
    assert cudart.calls[1:] == [("unregister", block.data_ptr())]
    assert not cudart.registered


def test_a_refused_pin_names_the_size_and_the_way_out(cudart: FakeCudart) -> None:
    cudart.code = 2
    with pytest.raises(UnavailableError, match=r"1 MiB.*CUDA error 2.*ulimit -l.*reload-cached"):
        PinnedMemory(host_block(1 << 20))
    assert not cudart.registered


def test_nothing_stays_pinned_where_nobody_closes(cudart: FakeCudart) -> None:
    pin: PinnedMemory | None = PinnedMemory(host_block(4096))
    assert len(cudart.registered) == 1
    del pin
    gc.collect()
    assert not cudart.registered


def test_a_host_without_room_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        is_host = False

    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: 1 << 20)
    with pytest.raises(UnavailableError, match=r"1 MiB free.*5 MiB.*smaller Whisper"):
        check_host_memory(5 << 20, Gpu())  # type: ignore[arg-type]
    check_host_memory(5 << 20, CPU)  # the allocator says it there


# ------------------------------------------------------------------------------- on a real device


def pinned_now() -> int:
    """Bytes that torch's pinned allocator holds, in use or not."""
    return int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0))


def last_error() -> int:
    """The CUDA runtime's own, as it waits for the next check."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    (runtime,) = {line.split()[-1] for line in lines if "libcudart" in line}
    return int(ctypes.CDLL(runtime).cudaPeekAtLastError())


@pytest.mark.gpu
def test_a_refused_pin_leaves_no_error_for_the_next_kernel() -> None:
    block = host_block(1 << 20)
    pin = PinnedMemory(block)
    with pytest.raises(UnavailableError, match=r"did not pin 1 MiB.*CUDA error"):
        PinnedMemory(block)  # the same range twice
    assert last_error() == 0
    assert torch.ones(4, device="cuda").sum().item() == 4
    pin.close()
    # and the first one is as it was: its range can be registered anew
    PinnedMemory(block).close()
    assert last_error() == 0


@pytest.mark.gpu
def test_what_was_kept_for_later_goes_back() -> None:
    from hybridlab.devices.cuda import CudaDevice

    device = CudaDevice()
    gc.collect()  # what tracebacks of earlier tests hold of the card
    device.release_caches()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    pinned = pinned_now()
    with device.new_stream()():
        rows = torch.ones(64, 64, device=device.name)
        product = rows @ rows
    waiting = torch.empty(3 << 20, dtype=torch.uint8).pin_memory()
    assert torch.cuda.memory_allocated() > allocated
    assert pinned_now() - pinned == (weight_buffer.pinned_bytes(waiting.nbytes))
    del rows, product, waiting
    device.release_caches()
    assert torch.cuda.memory_allocated() == allocated
    assert torch.cuda.memory_reserved() == reserved
    assert pinned_now() == pinned


def test_pinned_tensors_take_the_next_power_of_two() -> None:
    assert [weight_buffer.pinned_bytes(n) for n in (1, 2, 3, 1 << 20, (1 << 20) + 1)] == [
        *(1, 2, 4, 1 << 20),
        2 << 20,
    ]


def test_a_copy_that_did_not_arrive_is_seen() -> None:
    module = nn.Linear(64, 64)
    fingerprint = weight_buffer.Fingerprint(module)
    made = WeightBuffer(module, CPU)
    block = device_block(made.n_bytes, CPU)
    made.copy_in(block)
    assert fingerprint.matches()
    block.zero_()
    assert not fingerprint.matches()
