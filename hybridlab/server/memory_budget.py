"""Bytes that calls at work may take together, as the device has them now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hybridlab.server.errors import ApiError, memory_taken
from hybridlab.server.memory import SharedMemory


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
