"""Where models run now: CUDA with its allocator and NVML, or the host with its own memory."""

from __future__ import annotations

import math
import os

from hybridlab import catalog
from hybridlab.catalog.device_names import device_kind, simulated_card
from hybridlab.catalog.registry import load
from hybridlab.devices.base import AllocatorStats, Device, MemoryOwners, Reading
from hybridlab.devices.cpu import CpuDevice
from hybridlab.devices.cuda import CudaDevice
from hybridlab.devices.simulated import SimulatedCard
from hybridlab.devices.visible import cuda_lack, visible_gpus
from hybridlab.errors import UnavailableError
from hybridlab.simulation import STATE_VARIABLE

__all__ = [
    "AllocatorStats",
    "CpuDevice",
    "CudaDevice",
    "Device",
    "MemoryOwners",
    "Reading",
    "SimulatedCard",
    "card_of",
    "planned_card",
    "resolve_device",
]


def resolve_device(name: str) -> Device:
    """A device by its name in `hybridlab.catalog.device_names.DEVICES`, or with `auto` the first
    GPU, else the host; `UnavailableError` where it is not there."""
    if name == "auto":
        return CpuDevice() if cuda_lack() else CudaDevice(0)
    device: Device = load(device_kind(name).open)(name)
    return device


def open_cpu(_: str) -> CpuDevice:
    return CpuDevice()


def open_simulated(name: str) -> CudaDevice:
    """A simulated card is known by the catalog, and in a process that was started with one it is
    its first CUDA device."""
    card = simulated_card(name)
    assert card is not None
    if STATE_VARIABLE not in os.environ:
        return SimulatedCard(card)
    device = CudaDevice(0)
    device.keeps_times = False
    return device


def open_cuda(name: str) -> CudaDevice:
    """`cuda` is `cuda:0`."""
    lack = cuda_lack()
    index, count = int(name.partition(":")[2] or "0"), 0 if lack else len(visible_gpus())
    if index >= count:
        why = f" ({lack})" if lack else ""
        raise UnavailableError(
            f"device {name!r} is not there: this machine has {count} CUDA devices{why}; set device "
            "to cpu or auto, or use a preset for the CPU (params/pocket.yaml)"
        )
    return CudaDevice(index)


def planned_card(device: Device) -> catalog.Card:
    """The card that predictions for this device are made for: the catalog's, or one with the
    device's own numbers (a card that the catalog does not know, an instance of a divided one, a
    larger one under a memory limit); the host for a CPU."""
    if device.capability is None:
        return catalog.HOST
    total = device.capacity_bytes()
    return card_of(device) or catalog.Card(
        name=device.title().lower().replace(" ", "-"),
        title=device.title(),
        nominal_bytes=total,
        usable_bytes=total,
        usable_bytes_max=total,
        compute_capability=device.capability,
        memory_bandwidth=math.nan,
    )


def card_of(device: Device) -> catalog.Card | None:
    """The catalog's card with this device's name and size, if any."""
    if device.capability is None:
        return None
    return catalog.card_titled(device.title(), device.capacity_bytes())
