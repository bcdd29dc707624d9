"""Bytes of tensors that are alive together while code runs, on any device.

CUDA's allocator knows them itself; a CPU has no such account, and the meta device (true
architectures without memory) has nothing else. Tracing costs time, never memory: use it on a
request whose latency is not reported. Tensors inside a fused operation are not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations inside the block create, until they are freed.

    >>> with LiveTensors() as live:
    ...     _ = torch.ones(1024)
    >>> live.peak_bytes
    4096
    """

    def __init__(self, on_change: Callable[[int], None] | None = None) -> None:
        """`on_change` is told the bytes that are alive whenever that number changes."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_change = on_change
        self.now_bytes = 0
        self.peak_bytes = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in given and key not in self._live:
                self._live[key] = storage.nbytes()
                self._count(storage.nbytes())
                weakref.finalize(storage, self._freed, key)
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        return found

    def take_peak(self) -> int:
        """The peak since the last call; the next one starts from what is alive now."""
        peak, self.peak_bytes = self.peak_bytes, self.now_bytes
        return peak

    def _freed(self, key: int) -> None:
        self._count(-self._live.pop(key))

    def _count(self, n_bytes: int) -> None:
        self.now_bytes += n_bytes
        if self.on_change is not None:
            self.on_change(self.now_bytes)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [
        leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and not leaf.is_sparse
    ]
