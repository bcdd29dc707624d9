"""The device's memory as the workers share it: several allocators, one budget.

It is asked without a CUDA context: NVML knows the card, and each worker reports its allocator.
"""

from __future__ import annotations

import errno

from hybridlab.devices import Device, procfs
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
