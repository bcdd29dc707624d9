"""Swapping a tenant's weights as one block: `arena` and `arena-overlapped`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab.devices import Device
from hybridlab.models.base import Span, Tenant, storage_bytes
from hybridlab.strategies import arena
from hybridlab.strategies.base import stage
from hybridlab.strategies.movers import Mover, Swap


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
        module = self.load(tenant, "arena")
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
            self.verify(tenant)

    def drop(self, tenant: Tenant) -> None:
        made = self.arenas[tenant.name]
        with stage(tenant, "release", made.n_bytes):
            made.release()
            if self.shared is None:  # the other tenant may be another process
                torch.cuda.empty_cache()

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
        self.verify(tenant)
        ended = time.perf_counter()
        return [
            Span(tenant.name, "allocate", began, ready, made.n_bytes),
            Span(tenant.name, "copy-in", ready, ended, made.n_bytes),
        ]
