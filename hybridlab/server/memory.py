"""The device's memory as the workers share it: several allocators, one budget.

It is asked without a CUDA context: NVML knows the card, and each worker reports its allocator.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hybridlab.devices import Device, procfs
from hybridlab.server.errors import ApiError, memory_taken
from hybridlab.server.model_client import WorkerModelClient

#: This process, or the machine, may open no more files now.
OUT_OF_HANDLES = (errno.EMFILE, errno.ENFILE)


class SharedMemory:
    """What of one device is free, and who holds the rest. Made before the workers of its `models`,
    which are added to it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.models: list[WorkerModelClient] = []
        self.name = "this machine's memory" if device.is_host else "the card"
        self._contexts_bytes = 0
        self._before_bytes = self._used_bytes()

    def free_bytes(self) -> int | None:
        """What the driver, or the kernel, would give a worker now; None without NVML."""
        try:
            if self.device.is_host:
                return self.device.free_bytes()
            used = self._used_bytes()
            return None if used is None else self.device.capacity_bytes() - used
        except OSError as error:
            if error.errno not in OUT_OF_HANDLES:
                raise
            return None  # the kernel's figures lie in files; the last ones are good enough

    def available_bytes(self) -> int | None:
        """What requests could take if all workers gave back what they do not need: their caches,
        and weights that leave with their turn. A worker reports what it took after its call."""
        free = self.free_bytes()
        if free is None:
            return None
        return free + sum(m.cached_bytes + m.offloadable_bytes for m in self.models)

    def settle(self) -> None:
        """All is loaded, nothing at work: what workers hold beside their allocators is known from
        now on."""
        used, own = self._used_bytes(), self._own_bytes()
        if own is None and used is not None and self._before_bytes is not None:
            own = used - self._before_bytes
        self._note_contexts(own)

    def others_bytes(self, *, idle: bool) -> int | None:
        """What programs other than the workers hold; `idle`: no worker is at work. None where that
        cannot be told, as while one is that the driver does not show by itself."""
        used, own = self._used_bytes(), self._own_bytes()
        if own is None and idle:
            own = self._reserved_bytes() + self._contexts_bytes
        return None if used is None or own is None else max(0, used - own)

    def owners(self, *, idle: bool) -> dict[str, int]:
        """Bytes in use by owner: each model's weights and what its process has allocated beside
        them, on a card the workers' contexts and what their allocators keep for later, on a host
        this process' own, and as the rest others'."""
        owners = self._models_bytes()
        if not self.device.is_host:
            own = self._own_bytes()
            if idle:
                self._note_contexts(own)
            held = self._reserved_bytes() if own is None else own - self._contexts_bytes
            owners["allocator cache"] = max(0, held - sum(owners.values()))
            owners["workers' contexts"] = self._contexts_bytes
        else:
            owners["server"] = procfs.status_bytes("VmRSS")
        used = self._used_bytes()
        if used is not None:
            owners["others"] = max(0, used - sum(owners.values()))
        return owners

    def _models_bytes(self) -> dict[str, int]:
        owners = {}
        for model in self.models:
            weights = model.remote.weights_bytes() or 0
            owners[f"{model.role} weights"] = weights
            working = model.remote.member.used_bytes() - weights
            owners[f"{model.role} working memory"] = max(0, working)
        return owners

    def _note_contexts(self, own_bytes: int | None) -> None:
        if own_bytes is not None:
            self._contexts_bytes = max(0, own_bytes - self._reserved_bytes())

    def _used_bytes(self) -> int | None:
        """In use on the whole device."""
        used = self.device.total_used_bytes().value
        return None if used is None else int(used)

    def _own_bytes(self) -> int | None:
        """All that the workers hold, contexts and caches included; None where the driver does not
        tell it process by process, as in many containers."""
        if self.device.is_host:
            return procfs.status_bytes("VmRSS") + sum(self._models_bytes().values())
        holders = self.device.process_bytes()
        pids = [pid for m in self.models if m.remote.member.alive for pid in m.remote.member.pids]
        if not all(pid in holders for pid in pids):
            return None
        return sum(holders[pid] for pid in pids)

    def _reserved_bytes(self) -> int:
        return sum(model.remote.member.reserved_bytes() for model in self.models)


class MemoryBudget:
    """Bytes that calls at work may take together; a call that does not fit beside them waits, in
    the order of arrival. `memory` is asked how many there are; without it, or with `fixed`, they
    are `n_bytes`."""

    def __init__(
        self, n_bytes: int, *, memory: SharedMemory | None = None, fixed: bool = False
    ) -> None:
        self.n_bytes = n_bytes
        self.memory = memory
        self.fixed = fixed
        self.held_bytes = 0
        self._others_at_first_bytes: int | None = None
        self._at_work = 0
        self._alone = False
        self._line = asyncio.Lock()  # which is fair
        self._changed = asyncio.Condition()

    def settle(self) -> None:
        """All is loaded, and no model is at work yet."""
        if self.memory is not None:
            self.memory.settle()
            self._others_at_first_bytes = self.memory.others_bytes(idle=True)
        self.refresh()

    def refresh(self, *, idle: bool | None = None) -> None:
        """Read how many bytes there are now. While a call is at work (`idle` says otherwise) no
        more than before: what of the held bytes is taken already is not known."""
        if self.memory is None or self.fixed:
            return
        was_idle = self.idle
        found = self.memory.available_bytes()
        if found is None or (was_idle and not self.idle):  # work has begun on another thread
            return
        if was_idle if idle is None else idle:
            self.n_bytes = found
        else:
            self.n_bytes = min(self.n_bytes, found + self.held_bytes)

    @property
    def idle(self) -> bool:
        return not self._at_work

    @property
    def margin_bytes(self) -> int:
        return max(0, self.n_bytes - self.held_bytes)

    def taken_by_others(
        self, n_bytes: int, *, idle: bool | None = None, longest_s: float | None = None
    ) -> ApiError | None:
        """The error over so many bytes, where other programs are why they do not fit: those hold
        more than when all was loaded, and without that it would fit. `longest_s`: the longest audio
        that does."""
        if self.memory is None or self._others_at_first_bytes is None or n_bytes <= self.n_bytes:
            return None
        others = self.memory.others_bytes(idle=self.idle if idle is None else idle)
        if others is None or n_bytes > self.n_bytes + others - self._others_at_first_bytes:
            return None
        return memory_taken(others, self.memory.name, longest_s=longest_s)

    @asynccontextmanager
    async def hold(self, n_bytes: int, *, alone: bool = False) -> AsyncIterator[None]:
        """Take so many bytes while the work inside runs; `alone`: no other call runs beside it.
        Alone a call always runs: what could never fit was refused before."""
        async with self._line, self._changed:
            await self._changed.wait_for(lambda: self._fits(n_bytes, alone))
            self._at_work += 1
            self._alone = alone
            self.held_bytes += n_bytes
        try:
            yield
        finally:
            self._at_work -= 1
            self._alone = False
            self.held_bytes -= n_bytes
            async with self._changed:
                self._changed.notify_all()

    def _fits(self, n_bytes: int, alone: bool) -> bool:
        if self.idle:
            return True
        return not (alone or self._alone) and self.held_bytes + n_bytes <= self.n_bytes
