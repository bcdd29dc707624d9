"""Ways in which a tenant's weights leave the device and come back: the interface, and reloading.

Every stage is a span of the tenant, with the bytes that it moves, takes or frees: `disk`, `load`
(host memory to a working tenant), `host` and `pin` (making the host copy, once), `allocate`,
`copy-in`, `copy-out`, `release`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from torch import nn

from hybridlab.devices import Device, procfs
from hybridlab.errors import UnavailableError
from hybridlab.models.base import Model, PhaseSpan
from hybridlab.models.source import weight_files
from hybridlab.strategies.base import stage
from hybridlab.strategies.offload import weight_buffer

Swap = Literal["asr", "both"]
READ_BYTES = 8 * 2**20


class WeightOffloader(ABC):
    """Brings tenants in and lets them go; `prepare` each once, then `ready`."""

    def __init__(self, device: Device, *, swap: Swap) -> None:
        self.device = device
        self.swap = swap
        #: The link's own speed for memory of the kind that weights wait in, once `ready`.
        self.link_bytes_per_s: float | None = None
        self._fingerprints: dict[str, weight_buffer.Fingerprint] = {}

    def prepare(self, tenant: Model) -> None:
        """Make the tenant ready to be brought in; its weights are away afterwards."""
        return None

    def finalize(self) -> None:
        """All tenants are prepared."""
        return None

    @abstractmethod
    def onload(self, tenant: Model) -> None:
        """Weights onto the device, unless they are there."""

    @abstractmethod
    def offload(self, tenant: Model) -> None:
        """Weights off the device."""

    def load(self, tenant: Model, variant: str) -> nn.Module:
        """Load a tenant whose weights will be moved; `UnavailableError` where torch does not hold
        them."""
        with stage(tenant, "load"):
            tenant.load()
        module = module_of(tenant, variant)
        if self.device.kind == "cuda" and tenant.spec.has_text:
            self._fingerprints[tenant.name] = weight_buffer.Fingerprint(module)
        return module

    def verify(self, tenant: Model) -> None:
        """After a copy across a link: drivers are known that report success and leave the device's
        memory as it was, which would be a wrong text and no error."""
        fingerprint = self._fingerprints.get(tenant.name)
        if fingerprint is not None and not fingerprint.matches():
            raise RuntimeError(
                f"{tenant.name}'s weights did not arrive on {self.device.title()} as they left it, "
                "though the driver reported no error; use reload-cached, or another driver"
            )

    def overlapping(self, tenant: Model) -> AbstractContextManager[None]:
        """The other tenant's work goes inside: a way that overlaps brings this one in meanwhile."""
        return nullcontext()

    def owners(self) -> dict[str, int]:
        """Bytes of the device that this way holds beside the weights of a tenant that is in."""
        return {}

    def host_copy_bytes(self) -> int:
        """Bytes of host memory in which weights wait."""
        return 0

    def close(self) -> None:
        """Give back what `prepare` and `ready` took."""
        return None


# ----------------------------------------------------------------------------------------- reload


class ReloadWarm(WeightOffloader):
    """Drop the model and load it again from where it came; its files are in the page cache.

    Bound by the library that builds the model and by host memory: files are parsed, modules made,
    tensors copied one by one. Needs no host copy of its own.
    """

    def onload(self, tenant: Model) -> None:
        if not tenant.loaded:
            with stage(tenant, "load"):
                tenant.load()

    def offload(self, tenant: Model) -> None:
        with stage(tenant, "release", tenant.weights_bytes()):
            tenant.unload()


class ReloadCold(ReloadWarm):
    """As `reload-cached` after the files have left the page cache: the first load of the day.

    Bound by the disk. The files are read in one go, the fastest that a disk gives, as a stage of
    its own whose bytes are those that the kernel really fetched; loading is then as when warm.
    """

    def prepare(self, tenant: Model) -> None:
        weight_files(tenant.spec)  # says now what would fail at the first request

    def onload(self, tenant: Model) -> None:
        if not tenant.loaded:
            self._read(tenant)
        super().onload(tenant)

    def _read(self, tenant: Model) -> None:
        files = weight_files(tenant.spec)
        for file in files:
            procfs.drop_page_cache(file)
        before, began = procfs.read_from_disk_bytes(), time.perf_counter()
        buffer = bytearray(READ_BYTES)
        for file in files:
            with open(file, "rb", buffering=0) as source:
                while source.readinto(buffer):
                    pass
        ended, fetched = time.perf_counter(), procfs.read_from_disk_bytes() - before
        tenant.spans.append(PhaseSpan(tenant.name, "disk", began, ended, fetched))


# ------------------------------------------------------------------------------- what copies ask


def need_link(device: Device, variant: str) -> None:
    """`UnavailableError` where the device is the host."""
    if device.kind == "cpu":
        raise UnavailableError(
            f"variant {variant} needs a device with memory of its own; here the device is the host "
            "and nothing would move: use single-buffer"
        )


def module_of(tenant: Model, variant: str) -> nn.Module:
    """`UnavailableError` where torch does not hold all of the tenant's weights."""
    module = tenant.module()
    if module is None or tenant.spec.dtype in ("int8", "int4"):
        holder = tenant.spec.backend if module is None else "bitsandbytes"
        raise UnavailableError(
            f"variant {variant} cannot move the weights of {tenant.spec.model}: {holder} holds "
            "them, not torch; use reload-cached, or another backend or dtype"
        )
    return module


def link_speed(n_bytes: int, device: Device, *, pinned: bool) -> float:
    """Bytes per second into a fresh block of the device, from host memory of this kind."""
    source, target = weight_buffer.host_block(n_bytes), weight_buffer.device_block(n_bytes, device)
    pin = weight_buffer.PinnedMemory(source) if pinned else None
    try:
        return weight_buffer.link_bytes_per_s(source, target, device)
    finally:
        if pin is not None:
            pin.close()
