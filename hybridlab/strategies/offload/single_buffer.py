"""Swapping a tenant's weights as one block: `single-buffer` and `single-buffer-overlapped`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab.devices import Device
from hybridlab.models.base import Model, PhaseSpan, storage_bytes
from hybridlab.strategies.base import stage
from hybridlab.strategies.offload import weight_buffer
from hybridlab.strategies.offload.base import Swap, WeightOffloader


class InArena(WeightOffloader):
    """All weights of a tenant in one exactly sized host block, pinned where there is a link, and
    ONE copy in; nothing goes out.

    Bound by the link, or by host memory where the host is the device. `swap='both'` keeps one
    device block as large as the larger tenant for good, so that swapping can never fragment;
    `swap='asr'` gives the block back, so that Voxtral can work in it, and pays for allocating
    it anew (page faults on a host). Host memory for every swapped tenant is the price.
    """

    overlaps = False

    def __init__(self, device: Device, *, swap: Swap) -> None:
        super().__init__(device, swap=swap)
        self.arenas: dict[str, weight_buffer.WeightBuffer] = {}
        self.pins: list[weight_buffer.PinnedMemory] = []
        self.shared: Tensor | None = None

    def prepare(self, tenant: Model) -> None:
        module = self.load(tenant, "single-buffer")
        n_bytes = storage_bytes(module)
        with stage(tenant, "host", n_bytes):
            made = self.arenas[tenant.name] = weight_buffer.WeightBuffer(module, self.device)
        if self.device.kind == "cuda":
            with stage(tenant, "pin", made.n_bytes):
                self.pins.append(weight_buffer.PinnedMemory(made.host))
        self.device.release()

    def finalize(self) -> None:
        largest = max(self.arenas.values(), key=lambda made: made.n_bytes)
        block = weight_buffer.device_block(largest.n_bytes, self.device)
        self.link_bytes_per_s = weight_buffer.link_bytes_per_s(largest.host, block, self.device)
        if self.swap == "both" and not self.overlaps:
            self.shared = block

    def onload(self, tenant: Model) -> None:
        made = self.arenas[tenant.name]
        if made.here:
            return
        if self.shared is not None and any(other.here for other in self.arenas.values()):
            raise RuntimeError("the shared block still holds the other tenant")
        block = self.shared
        if block is None:
            with stage(tenant, "allocate", made.n_bytes):
                block = weight_buffer.device_block(made.n_bytes, self.device)
        with stage(tenant, "copy-in", made.n_bytes):
            made.copy_in(block)
            self.verify(tenant)

    def offload(self, tenant: Model) -> None:
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
    """As `single-buffer`, with the copy of one tenant hidden behind the other's work, on a thread
    and a stream of its own.

    Bound by whichever is longer, the copy or the work it hides behind; both share host memory's
    bandwidth, and on a CPU the cores. Both tenants' blocks stand at once while it copies: it buys
    time with the memory that swapping was to save.
    """

    overlaps = True

    @contextmanager
    def overlapping(self, tenant: Model) -> Iterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="single-buffer") as pool:
            copied = pool.submit(self._copy_aside, self.arenas[tenant.name], tenant)
            yield
        tenant.spans += copied.result()

    def _copy_aside(self, made: weight_buffer.WeightBuffer, tenant: Model) -> list[PhaseSpan]:
        """On a thread: it tells no phases, which belong to the tenant at work."""
        began = time.perf_counter()
        block = weight_buffer.device_block(made.n_bytes, self.device)
        ready = time.perf_counter()
        with weight_buffer.beside_other_work(self.device):
            made.copy_in(block)
        self.verify(tenant)
        ended = time.perf_counter()
        return [
            PhaseSpan(tenant.name, "allocate", began, ready, made.n_bytes),
            PhaseSpan(tenant.name, "copy-in", ready, ended, made.n_bytes),
        ]
