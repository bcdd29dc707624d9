"""Bytes that calls at work may take together, as the device has them now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class Memory(Protocol):
    """The device that the models share; None is what it cannot tell."""

    name: str

    def free_bytes(self) -> int | None:
        """What a model's process could take beside all that the others keep."""

    def available_bytes(self) -> int | None:
        """What requests could take if no allocator kept anything for later."""

    def others_bytes(self, *, idle: bool) -> int | None:
        """What other programs hold; `idle`: no model is at work."""

    def settle(self) -> None:
        """All models are loaded, and none is at work."""


@dataclass(frozen=True)
class ForeignMemory:
    """What other programs hold."""

    n_bytes: int
    #: Of which memory.
    of: str


class MemoryBudget:
    """Bytes that calls at work may take together; a call that does not fit beside them waits, in
    the order of arrival. `memory` is asked how many there are; without it, or with `fixed`, they
    are `n_bytes`."""

    def __init__(self, n_bytes: int, *, memory: Memory | None = None, fixed: bool = False) -> None:
        self.n_bytes = n_bytes
        self.memory = memory
        self.fixed = fixed
        self.held_bytes = 0
        self._others_at_first_bytes: int | None = None
        self._at_work = 0
        self._alone = False
        self._waiting: deque[object] = deque()
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

    def foreign_over(self, n_bytes: int, *, idle: bool | None = None) -> ForeignMemory | None:
        """Other programs, where they are why so many bytes do not fit: they hold more than when all
        was loaded, and without that it would fit."""
        if self.memory is None or self._others_at_first_bytes is None or n_bytes <= self.n_bytes:
            return None
        others = self.memory.others_bytes(idle=self.idle if idle is None else idle)
        if others is None or n_bytes > self.n_bytes + others - self._others_at_first_bytes:
            return None
        return ForeignMemory(others, self.memory.name)

    @asynccontextmanager
    async def hold(self, n_bytes: int, *, alone: bool = False) -> AsyncIterator[None]:
        """Take so many bytes while the work inside runs; `alone`: no other call runs beside it.
        Alone a call always runs: what could never fit was refused before."""
        ticket, taken = object(), False
        self._waiting.append(ticket)
        try:
            try:
                async with self._changed:
                    await self._changed.wait_for(
                        lambda: self._waiting[0] is ticket and self._fits(n_bytes, alone)
                    )
                    taken = True
                    self._enter(n_bytes, alone)
            finally:
                self._waiting.remove(ticket)
                await self._notify()  # the next in line may fit beside it
            yield
        finally:
            if taken:
                self._leave(n_bytes)
            await self._notify()

    def _fits(self, n_bytes: int, alone: bool) -> bool:
        if self.idle:
            return True
        return not (alone or self._alone) and self.held_bytes + n_bytes <= self.n_bytes

    def _enter(self, n_bytes: int, alone: bool) -> None:
        self._at_work += 1
        self._alone = alone
        self.held_bytes += n_bytes

    def _leave(self, n_bytes: int) -> None:
        self._at_work -= 1
        self._alone = False
        self.held_bytes -= n_bytes

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
