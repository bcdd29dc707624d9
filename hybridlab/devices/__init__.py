"""Where models run now: CUDA with its allocator and NVML, or the host with its own memory."""

from __future__ import annotations

import os

from hybridlab import catalog
from hybridlab.catalog.device_names import check_device, simulated_card
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
    "resolve_device",
]


def resolve_device(name: str) -> Device:
    """`auto`, `cpu`, `cuda`, `cuda:N` or `simulated:CARD` as a device; `UnavailableError` where it
    is not there. A simulated card is known by the catalog, and in a process that was started with
    one it is its first CUDA device."""
    check_device(name)
    if name == "cpu":
        return CpuDevice()
    card = simulated_card(name)
    if card is not None:
        return CudaDevice(0) if STATE_VARIABLE in os.environ else SimulatedCard(card)
    lack = cuda_lack()
    if name == "auto":
        return CpuDevice() if lack else CudaDevice(0)
    number = name.partition(":")[2]
    index, count = int(number or "0"), 0 if lack else len(visible_gpus())
    if index >= count:
        why = f" ({lack})" if lack else ""
        raise UnavailableError(
            f"device {name!r} is not there: this machine has {count} CUDA devices{why}; set device "
            "to cpu or auto, or use a preset for the CPU (params/pocket.yaml)"
        )
    return CudaDevice(index)


def card_of(device: Device) -> catalog.Card | None:
    """The catalog's card with this device's name, if any."""
    if device.kind != "cuda":
        return None
    words = device.title().lower().replace("-", " ").split()
    total = device.capacity_bytes()
    for card in catalog.CARDS.values():
        key = card.name.split("-")
        same_name = all(part in words for part in key if not part.isdigit() or len(part) == 4)
        if same_name and abs(total - card.usable_bytes) < 0.1 * card.usable_bytes:
            return card
    return None
