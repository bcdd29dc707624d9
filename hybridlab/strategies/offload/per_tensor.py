"""Swapping tensor by tensor: `module-to-cpu` and `pinned`, for devices with memory of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridlab.config.params import Swap
from hybridlab.devices import Device
from hybridlab.devices.cpu import check_host_memory
from hybridlab.models.base import Model, storage_bytes
from hybridlab.strategies.base import stage
from hybridlab.strategies.offload import weight_buffer
from hybridlab.strategies.offload.base import WeightOffloader, link_speed


class ToCpu(WeightOffloader):
    """`module.to("cpu")` and back, as many programs do it: both ways, tensor by tensor.

    Bound by the link at its pageable speed (the driver copies through a small pinned buffer of its
    own), and paid twice, since weights that never changed are copied out as well.
    """

    needs_link = True

    def __init__(self, device: Device, variant: str, *, swap: Swap) -> None:
        super().__init__(device, variant, swap=swap)
        self.modules: dict[str, nn.Module] = {}
        self.away: dict[str, int] = {}
        self.largest_bytes = 0

    def prepare(self, model: Model) -> None:
        module = self.modules[model.name] = self.load(model)
        n_bytes = storage_bytes(module)
        check_host_memory(n_bytes, self.device)
        self.largest_bytes = max(self.largest_bytes, n_bytes)
        self.offload(model)

    def finalize(self) -> None:
        self.link_bytes_per_s = link_speed(self.largest_bytes, self.device, pinned=False)

    def onload(self, model: Model) -> None:
        if model.name in self.away:
            with stage(model, "copy-in", self.away[model.name]):
                self.modules[model.name].to(self.device.torch_name)
                self.verify(model)
            del self.away[model.name]

    def offload(self, model: Model) -> None:
        module = self.modules[model.name]
        n_bytes = storage_bytes(module)
        with stage(model, "copy-out", n_bytes):
            module.to("cpu")
        self.away[model.name] = n_bytes
        with stage(model, "release", n_bytes):
            self.device.release()

    def host_copy_bytes(self) -> int:
        return sum(self.away.values())

    def close(self) -> None:
        self.away.clear()
        self.modules.clear()


class Pinned(WeightOffloader):
    """Every storage waits in pinned memory of its own and is copied in by itself; nothing goes out.

    Bound by the link, and by one allocation and one launch per tensor, which small tensors do not
    pay back. torch's `pin_memory` rounds each one up to a power of two: host memory is dearer than
    the weights.
    """

    needs_link = True

    def __init__(self, device: Device, variant: str, *, swap: Swap) -> None:
        super().__init__(device, variant, swap=swap)
        self.masters: dict[str, list[tuple[weight_buffer.StorageSlice, Tensor]]] = {}
        self.here: set[str] = set()

    def prepare(self, model: Model) -> None:
        slots = weight_buffer.layout(self.load(model))
        n_bytes = sum(weight_buffer.pinned_bytes(slot.n_bytes) for slot in slots)
        check_host_memory(n_bytes, self.device)
        with stage(model, "pin", n_bytes):
            try:
                self.masters[model.name] = [
                    (slot, weight_buffer.bytes_of(slot.views[0].tensor).cpu().pin_memory())
                    for slot in slots
                ]
            except torch.AcceleratorError as error:  # torch has taken it from the runtime
                raise weight_buffer.not_pinned(n_bytes, str(error).splitlines()[0]) from error
        self.here.add(model.name)
        self.offload(model)

    def finalize(self) -> None:
        largest = max(map(_master_bytes, self.masters.values()))
        self.link_bytes_per_s = link_speed(largest, self.device, pinned=True)

    def onload(self, model: Model) -> None:
        if model.name in self.here:
            return
        masters = self.masters[model.name]
        with stage(model, "copy-in", _master_bytes(masters)):
            for slot, master in masters:
                copy = master.to(self.device.torch_name, non_blocking=True)
                slot.point_to(copy.untyped_storage(), 0)
            self.verify(model)
        self.here.add(model.name)

    def offload(self, model: Model) -> None:
        masters = self.masters[model.name]
        with stage(model, "release", _master_bytes(masters)):
            self.here.discard(model.name)
            for slot, _ in masters:
                slot.let_go(self.device.torch_name)
            self.device.release()

    def host_copy_bytes(self) -> int:
        """As torch's allocator rounds them up."""
        pinned = (slot for masters in self.masters.values() for slot, _ in masters)
        return sum(weight_buffer.pinned_bytes(slot.n_bytes) for slot in pinned)

    def close(self) -> None:
        self.masters.clear()


def _master_bytes(masters: list[tuple[weight_buffer.StorageSlice, Tensor]]) -> int:
    return sum(slot.n_bytes for slot, _ in masters)
