"""Whether the host has memory for copies of weights."""

from __future__ import annotations

from hybridlab.devices.base import Device
from hybridlab.devices.cpu import CpuDevice
from hybridlab.errors import UnavailableError
from hybridlab.units import GB, format_bytes

#: What a copy of weights must leave of the host: one that is full ends the machine, not the case.
HOST_RESERVE_BYTES = 2 * GB
KEEP_NO_COPY = (
    "choose a smaller Whisper or the variant reload-cached, which keeps no copy on the host"
)


def check_host_memory(n_bytes: int, device: Device, *, fix: str = KEEP_NO_COPY) -> None:
    """`UnavailableError` where the host's memory cannot hold so much beside what it holds and a
    reserve, with what to do instead; where the host is the device, running out is a result of the
    allocator's own."""
    free = CpuDevice().free_bytes()
    if not device.is_host and n_bytes + HOST_RESERVE_BYTES > free:
        raise UnavailableError(
            f"the host has {format_bytes(free)} free and the weights' copy takes "
            f"{format_bytes(n_bytes)} beside a reserve of {format_bytes(HOST_RESERVE_BYTES)}; "
            f"{fix}"
        )
