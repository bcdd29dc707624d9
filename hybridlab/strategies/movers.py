"""The ways in which a tenant's weights leave the device and come back, one class each.

Every stage is a span of the tenant, with the bytes that it moves, takes or frees: `disk`, `load`
(host memory to a working tenant), `host` and `pin` (making the host copy, once), `allocate`,
`copy-in`, `copy-out`, `release`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from torch import Tensor, nn

from hybridlab import arena
from hybridlab.device import Device, linux
from hybridlab.errors import UnavailableError
from hybridlab.strategies.base import timed
from hybridlab.tenants.base import Span, Tenant, storage_bytes
from hybridlab.tenants.weights import weight_files

Swap = Literal["whisper", "both"]
READ_BYTES = 8 * 2**20


class Mover(ABC):
    """Brings tenants in and lets them go; `prepare` each once, then `ready`."""

    def __init__(self, device: Device, *, swap: Swap) -> None:
        self.device = device
        self.swap = swap
        #: The link's own speed for memory of the kind that weights wait in, once `ready`.
        self.link_bytes_per_s: float | None = None

    def prepare(self, tenant: Tenant) -> None:
        """Make the tenant ready to be brought in; its weights are away afterwards."""
        return None

    def ready(self) -> None:
        """All tenants are prepared."""
        return None

    @abstractmethod
    def bring_in(self, tenant: Tenant) -> None:
        """Weights onto the device, unless they are there."""

    @abstractmethod
    def drop(self, tenant: Tenant) -> None:
        """Weights off the device."""

    def during(self, tenant: Tenant) -> AbstractContextManager[None]:
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


@contextmanager
def stage(tenant: Tenant, phase: str, n_bytes: int | None = None) -> Iterator[None]:
    """A timed span whose name a failure inside is told by."""
    if tenant.on_phase is not None:
        tenant.on_phase(f"{tenant.name} {phase}")
    with timed(tenant, phase, n_bytes):
        yield
    if tenant.on_phase is not None:
        tenant.on_phase("")


# ----------------------------------------------------------------------------------------- reload


class ReloadWarm(Mover):
    """Drop the model and load it again from where it came; its files are in the page cache.

    Bound by the library that builds the model and by host memory: files are parsed, modules made,
    tensors copied one by one. Needs no host copy of its own.
    """

    def bring_in(self, tenant: Tenant) -> None:
        if not tenant.loaded:
            with stage(tenant, "load"):
                tenant.load()

    def drop(self, tenant: Tenant) -> None:
        with stage(tenant, "release", tenant.weights_bytes()):
            tenant.unload()


class ReloadCold(ReloadWarm):
    """As `reload-warm` after the files have left the page cache: the first load of the day.

    Bound by the disk. The files are read in one go, the fastest that a disk gives, as a stage of
    its own whose bytes are those that the kernel really fetched; loading is then as when warm.
    """

    def prepare(self, tenant: Tenant) -> None:
        weight_files(tenant.spec)  # says now what would fail at the first request

    def bring_in(self, tenant: Tenant) -> None:
        if not tenant.loaded:
            self._read(tenant)
        super().bring_in(tenant)

    def _read(self, tenant: Tenant) -> None:
        files = weight_files(tenant.spec)
        for file in files:
            linux.drop_page_cache(file)
        before, began = linux.read_from_disk_bytes(), time.perf_counter()
        buffer = bytearray(READ_BYTES)
        for file in files:
            with open(file, "rb", buffering=0) as source:
                while source.readinto(buffer):
                    pass
        ended, fetched = time.perf_counter(), linux.read_from_disk_bytes() - before
        tenant.spans.append(Span(tenant.name, "disk", began, ended, fetched))


# ------------------------------------------------------------------------------ tensor by tensor


class ToCpu(Mover):
    """`module.to("cpu")` and back, as many programs do it: both ways, tensor by tensor.

    Bound by the link at its pageable speed (the driver copies through a small pinned buffer of its
    own), and paid twice, since weights that never changed are copied out as well.
    """

    def __init__(self, device: Device, *, swap: Swap) -> None:
        super().__init__(device, swap=swap)
        need_link(device, "to-cpu")
        self.away: dict[str, int] = {}
        self.largest_bytes = 0

    def prepare(self, tenant: Tenant) -> None:
        module = load_to_swap(tenant, "to-cpu")
        n_bytes = storage_bytes(module)
        arena.check_host_room(n_bytes, self.device)
        self.largest_bytes = max(self.largest_bytes, n_bytes)
        self.drop(tenant)

    def ready(self) -> None:
        self.link_bytes_per_s = link_speed(self.largest_bytes, self.device, pinned=False)

    def bring_in(self, tenant: Tenant) -> None:
        if tenant.name in self.away:
            with stage(tenant, "copy-in", self.away[tenant.name]):
                module_of(tenant, "to-cpu").to(self.device.name)
            del self.away[tenant.name]

    def drop(self, tenant: Tenant) -> None:
        module = module_of(tenant, "to-cpu")
        n_bytes = storage_bytes(module)
        with stage(tenant, "copy-out", n_bytes):
            module.to("cpu")
        self.away[tenant.name] = n_bytes
        with stage(tenant, "release", n_bytes):
            self.device.release()

    def host_copy_bytes(self) -> int:
        return sum(self.away.values())


class Pinned(Mover):
    """Every storage waits in pinned memory of its own and is copied in by itself; nothing goes out.

    Bound by the link, and by one allocation and one launch per tensor, which small tensors do not
    pay back. torch's `pin_memory` rounds each one up to a power of two: host memory is dearer than
    the weights.
    """

    def __init__(self, device: Device, *, swap: Swap) -> None:
        super().__init__(device, swap=swap)
        need_link(device, "pinned")
        self.masters: dict[str, list[tuple[arena.Slot, Tensor]]] = {}
        self.here: set[str] = set()

    def prepare(self, tenant: Tenant) -> None:
        slots = arena.layout(load_to_swap(tenant, "pinned"))
        arena.check_host_room(sum(slot.n_bytes for slot in slots), self.device)
        with stage(tenant, "pin", sum(slot.n_bytes for slot in slots)):
            self.masters[tenant.name] = [
                (slot, arena.bytes_of(slot.views[0].tensor).cpu().pin_memory()) for slot in slots
            ]
        self.here.add(tenant.name)
        self.drop(tenant)

    def ready(self) -> None:
        largest = max(map(_master_bytes, self.masters.values()))
        self.link_bytes_per_s = link_speed(largest, self.device, pinned=True)

    def bring_in(self, tenant: Tenant) -> None:
        if tenant.name in self.here:
            return
        masters = self.masters[tenant.name]
        with stage(tenant, "copy-in", _master_bytes(masters)):
            for slot, master in masters:
                copy = master.to(self.device.name, non_blocking=True)
                slot.point_to(copy.untyped_storage(), 0)
        self.here.add(tenant.name)

    def drop(self, tenant: Tenant) -> None:
        masters = self.masters[tenant.name]
        with stage(tenant, "release", _master_bytes(masters)):
            self.here.discard(tenant.name)
            for slot, _ in masters:
                slot.let_go(self.device.name)
            self.device.release()

    def host_copy_bytes(self) -> int:
        return sum(map(_master_bytes, self.masters.values()))

    def close(self) -> None:
        self.masters.clear()


def _master_bytes(masters: list[tuple[arena.Slot, Tensor]]) -> int:
    return sum(slot.n_bytes for slot, _ in masters)


# ------------------------------------------------------------------------------------------ arena


class InArena(Mover):
    """All weights of a tenant in one exactly sized host block, pinned where there is a link, and
    ONE copy in; nothing goes out.

    Bound by the link, or by host memory where the host is the device. `swap='both'` keeps one
    device block as large as the larger tenant for good, so that swapping can never fragment;
    `swap='whisper'` gives the block back, so that Voxtral can work in it, and pays for allocating
    it anew (page faults on a host). Host memory for every swapped tenant is the price.
    """

    overlaps = False

    def __init__(self, device: Device, *, swap: Swap) -> None:
        super().__init__(device, swap=swap)
        self.arenas: dict[str, arena.Arena] = {}
        self.pins: list[arena.Pin] = []
        self.shared: Tensor | None = None

    def prepare(self, tenant: Tenant) -> None:
        module = load_to_swap(tenant, "arena")
        n_bytes = storage_bytes(module)
        with stage(tenant, "host", n_bytes):
            made = self.arenas[tenant.name] = arena.Arena(module, self.device)
        if self.device.kind == "cuda":
            with stage(tenant, "pin", made.n_bytes):
                self.pins.append(arena.Pin(made.host))
        self.device.release()

    def ready(self) -> None:
        largest = max(self.arenas.values(), key=lambda made: made.n_bytes)
        block = arena.device_block(largest.n_bytes, self.device)
        self.link_bytes_per_s = arena.link_bytes_per_s(largest.host, block, self.device)
        if self.swap == "both" and not self.overlaps:
            self.shared = block

    def bring_in(self, tenant: Tenant) -> None:
        made = self.arenas[tenant.name]
        if made.here:
            return
        if self.shared is not None and any(other.here for other in self.arenas.values()):
            raise RuntimeError("the shared block still holds the other tenant")
        block = self.shared
        if block is None:
            with stage(tenant, "allocate", made.n_bytes):
                block = arena.device_block(made.n_bytes, self.device)
        with stage(tenant, "copy-in", made.n_bytes):
            made.copy_in(block)

    def drop(self, tenant: Tenant) -> None:
        made = self.arenas[tenant.name]
        with stage(tenant, "release", made.n_bytes):
            made.release()

    def owners(self) -> dict[str, int]:
        held = {}
        if self.device.kind == "cpu":
            held = {f"{name} host copy": made.n_bytes for name, made in self.arenas.items()}
        if self.shared is not None and not any(made.here for made in self.arenas.values()):
            held["swap block"] = self.shared.nbytes
        return held

    def host_copy_bytes(self) -> int:
        return sum(made.n_bytes for made in self.arenas.values())

    def close(self) -> None:
        for pin in self.pins:
            pin.close()
        for made in self.arenas.values():
            made.close()
        self.pins.clear()
        self.arenas.clear()
        self.shared = None


class ArenaOverlapped(InArena):
    """As `arena`, with the copy of one tenant hidden behind the other's work, on a thread and a
    stream of its own.

    Bound by whichever is longer, the copy or the work it hides behind; both share host memory's
    bandwidth, and on a CPU the cores. Both tenants' blocks stand at once while it copies: it buys
    time with the memory that swapping was to save.
    """

    overlaps = True

    @contextmanager
    def during(self, tenant: Tenant) -> Iterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="arena") as pool:
            copied = pool.submit(self._copy_aside, self.arenas[tenant.name], tenant)
            yield
        tenant.spans += copied.result()

    def _copy_aside(self, made: arena.Arena, tenant: Tenant) -> list[Span]:
        """On a thread: it tells no phases, which belong to the tenant at work."""
        began = time.perf_counter()
        block = arena.device_block(made.n_bytes, self.device)
        ready = time.perf_counter()
        with arena.beside_other_work(self.device):
            made.copy_in(block)
        ended = time.perf_counter()
        return [
            Span(tenant.name, "allocate", began, ready, made.n_bytes),
            Span(tenant.name, "copy-in", ready, ended, made.n_bytes),
        ]


MOVERS: dict[str, type[Mover]] = {
    "reload-warm": ReloadWarm,
    "reload-cold": ReloadCold,
    "to-cpu": ToCpu,
    "pinned": Pinned,
    "arena": InArena,
    "arena-overlapped": ArenaOverlapped,
}

# ----------------------------------------------------------------------------------- what they ask


def need_link(device: Device, variant: str) -> None:
    """`UnavailableError` where the device is the host."""
    if device.kind == "cpu":
        raise UnavailableError(
            f"variant {variant} needs a device with memory of its own; here the device is the host "
            "and nothing would move: use arena"
        )


def module_of(tenant: Tenant, variant: str) -> nn.Module:
    """`UnavailableError` where torch does not hold all of the tenant's weights."""
    module = tenant.module()
    if module is None or tenant.spec.dtype in ("int8", "int4"):
        holder = tenant.spec.backend if module is None else "bitsandbytes"
        raise UnavailableError(
            f"variant {variant} cannot move the weights of {tenant.spec.model}: {holder} holds "
            "them, not torch; use reload-warm, or another backend or dtype"
        )
    return module


def load_to_swap(tenant: Tenant, variant: str) -> nn.Module:
    """Load a tenant whose weights will be moved."""
    with stage(tenant, "load"):
        tenant.load()
    return module_of(tenant, variant)


def link_speed(n_bytes: int, device: Device, *, pinned: bool) -> float:
    """Bytes per second into a fresh block of the device, from host memory of this kind."""
    source, target = arena.host_block(n_bytes), arena.device_block(n_bytes, device)
    pin = arena.Pin(source) if pinned else None
    speed = arena.link_bytes_per_s(source, target, device)
    if pin is not None:
        pin.close()
    return speed
