"""Swapping a model's weights as one block: `single-buffer` and `single-buffer-overlapped`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab import catalog
from hybridlab.config.params import Swap
from hybridlab.devices import Device
from hybridlab.models.base import Model, PhaseSpan, storage_bytes
from hybridlab.strategies.base import stage
from hybridlab.strategies.offload import weight_buffer
from hybridlab.strategies.offload.base import WeightOffloader


class SingleBuffer(WeightOffloader):
    """All weights of a model in one exactly sized host block, pinned where there is a link, and
    ONE copy in; nothing goes out.

    Bound by the link, or by host memory where the host is the device. `swap='both'` keeps one
    device block as large as the larger model for good, so that swapping can never fragment;
    `swap='asr'` gives the block back, so that Voxtral can work in it, and pays for allocating
    it anew (page faults on a host). Host memory for every swapped model is the price.
    """

    def __init__(self, device: Device, variant: str, *, swap: Swap) -> None:
        super().__init__(device, variant, swap=swap)
        self.buffers: dict[str, weight_buffer.WeightBuffer] = {}
        self.pins: list[weight_buffer.PinnedMemory] = []
        self.shared: Tensor | None = None

    def prepare(self, model: Model) -> None:
        module = self.load(model)
        n_bytes = storage_bytes(module)
        with stage(model, "host", n_bytes):
            made = self.buffers[model.name] = weight_buffer.WeightBuffer(module, self.device)
        if not self.device.is_host:
            with stage(model, "pin", made.n_bytes):
                self.pins.append(weight_buffer.PinnedMemory(made.host))
        self.device.release()

    def finalize(self) -> None:
        largest = max(self.buffers.values(), key=lambda made: made.n_bytes)
        block = weight_buffer.device_block(largest.n_bytes, self.device)
        self.link_bytes_per_s = weight_buffer.link_bytes_per_s(largest.host, block, self.device)
        overlaps = catalog.variant("swapping", self.variant).overlaps_copies
        if self.swap == "both" and not overlaps:
            self.shared = block

    def onload(self, model: Model) -> None:
        made = self.buffers[model.name]
        if made.here:
            return
        if self.shared is not None and any(other.here for other in self.buffers.values()):
            raise RuntimeError("the shared block still holds the other model")
        block = self.shared
        if block is None:
            with stage(model, "allocate", made.n_bytes):
                block = weight_buffer.device_block(made.n_bytes, self.device)
        with stage(model, "copy-in", made.n_bytes):
            made.copy_in(block)
            self.verify(model)

    def offload(self, model: Model) -> None:
        made = self.buffers[model.name]
        with stage(model, "release", made.n_bytes):
            made.release()
            if self.shared is None:  # the other model may be another process
                torch.cuda.empty_cache()

    def buffer_bytes(self) -> dict[str, int]:
        held = {}
        if self.device.is_host:
            held = {f"{name} host copy": made.n_bytes for name, made in self.buffers.items()}
        if self.shared is not None and not any(made.here for made in self.buffers.values()):
            held["swap block"] = self.shared.nbytes
        return held

    def host_copy_bytes(self) -> int:
        return sum(made.n_bytes for made in self.buffers.values())

    def close(self) -> None:
        for pin in self.pins:
            pin.close()
        for made in self.buffers.values():
            made.close()
        self.pins.clear()
        self.buffers.clear()
        self.shared = None


class OverlappedBuffer(SingleBuffer):
    """As `single-buffer`, with the copy of one model hidden behind the other's work, on a thread
    and a stream of its own.

    Bound by whichever is longer, the copy or the work it hides behind; both share host memory's
    bandwidth, and on a CPU the cores. Both models' blocks stand at once while it copies: it buys
    time with the memory that swapping was to save.
    """

    @contextmanager
    def overlapping(self, model: Model) -> Iterator[None]:
        with ThreadPoolExecutor(1, thread_name_prefix="single-buffer") as pool:
            copied = pool.submit(self._copy_aside, self.buffers[model.name], model)
            yield
        model.spans += copied.result()

    def _copy_aside(self, made: weight_buffer.WeightBuffer, model: Model) -> list[PhaseSpan]:
        """On a thread: it tells no phases, which belong to the model at work."""
        began = time.perf_counter()
        block = weight_buffer.device_block(made.n_bytes, self.device)
        ready = time.perf_counter()
        with self.device.side_stream():
            made.copy_in(block)
        self.verify(model)
        ended = time.perf_counter()
        return [
            PhaseSpan(model.name, "allocate", began, ready, made.n_bytes),
            PhaseSpan(model.name, "copy-in", ready, ended, made.n_bytes),
        ]
