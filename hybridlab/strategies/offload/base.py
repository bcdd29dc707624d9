"""Ways in which a model's weights leave the device and come back: the interface, and reloading.

Every stage is a span of the model, with the bytes that it moves, takes or frees: `disk`, `load`
(host memory to a working model), `host` and `pin` (making the host copy, once), `allocate`,
`copy-in`, `copy-out`, `release`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from hybridlab.config.params import Swap
from hybridlab.devices import Device, procfs
from hybridlab.errors import UnavailableError
from hybridlab.models.base import Model, PhaseSpan
from hybridlab.models.source import weight_files
from hybridlab.strategies.base import stage
from hybridlab.strategies.offload import weight_buffer

READ_BYTES = 8 * 2**20


class WeightOffloader(ABC):
    """Brings models in and lets them go; `prepare` each once, then `finalize`."""

    #: Whether it moves weights over a link: nothing would move where the device is the host.
    needs_link = False

    def __init__(self, device: Device, variant: str, *, swap: Swap) -> None:
        """`UnavailableError` on a CPU for what needs a link."""
        if self.needs_link and device.is_host:
            raise UnavailableError(
                f"variant {variant} needs a device with memory of its own; here the device is the "
                "host and nothing would move: use single-buffer"
            )
        self.device = device
        self.variant = variant
        self.swap = swap
        #: The link's own speed for memory of the kind that weights wait in, once finalized.
        self.link_bytes_per_s: float | None = None
        self._fingerprints: dict[str, weight_buffer.Fingerprint] = {}

    def prepare(self, model: Model) -> None:  # noqa: B027
        """Make the model ready to be brought in; its weights are away afterwards."""

    def finalize(self) -> None:  # noqa: B027
        """All models are prepared."""

    @abstractmethod
    def onload(self, model: Model) -> None:
        """Weights onto the device, unless they are there."""

    @abstractmethod
    def offload(self, model: Model) -> None:
        """Weights off the device."""

    def load(self, model: Model) -> nn.Module:
        """Load a model whose weights will be moved; `UnavailableError` where torch does not hold
        all of them."""
        with stage(model, "load"):
            model.load()
        module = model.module()
        if module is None or model.spec.dtype in ("int8", "int4"):
            holder = model.spec.backend if module is None else "bitsandbytes"
            raise UnavailableError(
                f"variant {self.variant} cannot move the weights of {model.spec.model}: {holder} "
                "holds them, not torch; use reload-cached, or another backend or dtype"
            )
        if not self.device.is_host and model.spec.has_text:
            self._fingerprints[model.name] = weight_buffer.Fingerprint(module)
        return module

    def verify(self, model: Model) -> None:
        """After a copy across a link: drivers are known that report success and leave the device's
        memory as it was, which would be a wrong text and no error."""
        fingerprint = self._fingerprints.get(model.name)
        if fingerprint is not None and not fingerprint.matches():
            raise RuntimeError(
                f"{model.name}'s weights did not arrive on {self.device.title()} as they left it, "
                "though the driver reported no error; use reload-cached, or another driver"
            )

    def overlapping(self, model: Model) -> AbstractContextManager[None]:
        """The other model's work goes inside: a way that overlaps brings this one in meanwhile."""
        return nullcontext()

    def buffer_bytes(self) -> dict[str, int]:
        """Bytes of the device by owner that this way takes beside the weights of a model that is
        in."""
        return {}

    def host_copy_bytes(self) -> int:
        """Bytes of host memory in which weights wait."""
        return 0

    def close(self) -> None:  # noqa: B027
        """Give back what `prepare` and `finalize` took."""


class ReloadCached(WeightOffloader):
    """Drop the model and load it again from where it came; its files are in the page cache.

    Bound by the library that builds the model and by host memory: files are parsed, modules made,
    tensors copied one by one. Needs no host copy of its own.
    """

    def onload(self, model: Model) -> None:
        if not model.loaded:
            with stage(model, "load"):
                model.load()

    def offload(self, model: Model) -> None:
        with stage(model, "release", model.weights_bytes()):
            model.unload()


class ReloadFromDisk(ReloadCached):
    """As `reload-cached` after the files have left the page cache: the first load of the day.

    Bound by the disk. The files are read in one go, the fastest that a disk gives, as a stage of
    its own whose bytes are those that the kernel really fetched; loading is then as when warm.
    """

    def prepare(self, model: Model) -> None:
        weight_files(model.spec)  # says now what would fail at the first request

    def onload(self, model: Model) -> None:
        if not model.loaded:
            self._read(model)
        super().onload(model)

    def _read(self, model: Model) -> None:
        files = weight_files(model.spec)
        for file in files:
            procfs.drop_page_cache(file)
        before, began = procfs.read_from_disk_bytes(), time.perf_counter()
        buffer = bytearray(READ_BYTES)
        for file in files:
            with open(file, "rb", buffering=0) as source:
                while source.readinto(buffer):
                    pass
        ended, fetched = time.perf_counter(), procfs.read_from_disk_bytes() - before
        model.spans.append(PhaseSpan(model.name, "disk", began, ended, fetched))


def link_speed(n_bytes: int, device: Device, *, pinned: bool) -> float:
    """Bytes per second into a fresh block of the device, from host memory of this kind."""
    source, target = weight_buffer.host_block(n_bytes), weight_buffer.device_block(n_bytes, device)
    pin = weight_buffer.PinnedMemory(source) if pinned else None
    try:
        return weight_buffer.link_bytes_per_s(source, target, device)
    finally:
        if pin is not None:
            pin.close()
