"""Bytes that calls at work may take together, as the device has them now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class Memory(Protocol):
    """The device that the tenants share; None is what it cannot tell."""

    name: str

    def free_bytes(self) -> int | None:
        """What a tenant's process could take beside all that the others keep."""

    def room_bytes(self) -> int | None:
        """What requests could take if nobody kept anything for later."""

    def others_bytes(self, *, idle: bool) -> int | None:
        """What other programs hold; `idle`: no tenant is at work."""

    def settle(self) -> None:
        """All tenants are loaded, and nobody is at work."""


@dataclass(frozen=True)
class Crowd:
    """What other programs hold of the memory that is called so."""

    n_bytes: int
    of: str


class Room:
    """Bytes that calls at work may take together; whoever does not fit beside them waits, in the
    order of arrival. `memory` is asked how many there are; without it, or with `fixed`, they are
    what was said at first."""

    def __init__(self, n_bytes: int, *, memory: Memory | None = None, fixed: bool = False) -> None:
        self.n_bytes = n_bytes
        self.memory = memory
        self.fixed = fixed
        self.held_bytes = 0
        self._others_at_first_bytes: int | None = None
        self._at_work = 0
        self._alone = False
        self._line: deque[object] = deque()
        self._changed = asyncio.Condition()

    def settle(self) -> None:
        """All is loaded, and nobody is at work yet."""
        if self.memory is not None:
            self.memory.settle()
            self._others_at_first_bytes = self.memory.others_bytes(idle=True)
        self.look()

    def look(self, *, idle: bool | None = None) -> None:
        """How many bytes there are now. While somebody is at work (`idle` says otherwise) no more
        than before: what of the held bytes is taken already is not known."""
        if self.memory is None or self.fixed:
            return
        was_idle = self.idle
        found = self.memory.room_bytes()
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

    def crowded_by(self, n_bytes: int, *, idle: bool | None = None) -> Crowd | None:
        """Other programs, where they are why so many bytes do not fit: they hold more than when all
        was loaded, and without that it would fit."""
        if self.memory is None or self._others_at_first_bytes is None or n_bytes <= self.n_bytes:
            return None
        others = self.memory.others_bytes(idle=self.idle if idle is None else idle)
        if others is None or n_bytes > self.n_bytes + others - self._others_at_first_bytes:
            return None
        return Crowd(others, self.memory.name)

    @asynccontextmanager
    async def hold(self, n_bytes: int, *, alone: bool = False) -> AsyncIterator[None]:
        """Take so many bytes while the work inside runs; `alone`: nobody works beside it. Alone
        one may always work: what could never fit was refused before."""
        place, taken = object(), False
        self._line.append(place)
        try:
            try:
                async with self._changed:
                    await self._changed.wait_for(
                        lambda: self._line[0] is place and self._fits(n_bytes, alone)
                    )
                    taken = True
                    self._enter(n_bytes, alone)
            finally:
                self._line.remove(place)
                await self._tell()  # the next in line may fit beside it
            yield
        finally:
            if taken:
                self._leave(n_bytes)
            await self._tell()

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

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
