"""What keeps a tenant up: starting again, the ladder of smaller models, housekeeping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from hybridlab.devices.oom import out_of_memory
from hybridlab.errors import UnavailableError, WorkerLostError
from hybridlab.server.tenant import ServedTenant

log = logging.getLogger("hybridlab.server")
Result = TypeVar("Result")
#: A worker that cannot be started again is given up after so many trials in a row.
MOST_FAILED_STARTS = 3
LONGEST_CLIMB_WAIT_S = 3600.0


@dataclass
class Counts:
    """What has happened to a tenant since the start."""

    ooms: int = 0
    fallbacks: int = 0
    climbs: int = 0
    restarts: int = 0
    cleanings: int = 0
    batches: int = 0
    batched_jobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a lane goes about its work; see `Settings`."""

    batch: int = 8
    clean_every: int = 0
    restart_above: float = 1.0
    climb_after_s: float = 60.0
    request_timeout_s: float = 300.0


class Upkeep:
    """Calls a tenant between its requests, on a thread, and mends what comes of it. `broken` says
    why it can never serve again; '' as long as it can."""

    def __init__(
        self, tenant: ServedTenant, policy: Policy, make_room: Callable[[], Awaitable[None]]
    ) -> None:
        self.tenant = tenant
        self.policy = policy
        self._make_room = make_room  # before a model is loaded beside others that are at work
        self.counts = Counts()
        self.broken = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=tenant.name)
        self._served = 0
        self._climb_wait_s = policy.climb_after_s
        self._climb_at_s = 0.0

    @property
    def model(self) -> str:
        return self.tenant.models[self.tenant.rung]

    async def open(self) -> None:
        """Bring the tenant up, on the largest rung that fits: `UnavailableError` where none does.
        Other faults are raised."""
        try:
            await self.in_thread(self.tenant.open)
        except Exception as error:
            failure = out_of_memory(error)
            if failure is None:
                raise
            self.counts.ooms += 1
            if not await self.step_down():
                smallest = self.tenant.models[-1]
                raise UnavailableError(
                    f"{smallest} does not fit into what is free: {failure.message}; hybridlab plan "
                    "says what would"
                ) from None

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        await asyncio.to_thread(self.tenant.close)

    async def start_again(self) -> bool:
        """The same model in a fresh worker, or a smaller one where memory lacks by now; without
        either the lane is broken."""
        for _ in range(MOST_FAILED_STARTS):
            self.counts.restarts += 1
            try:
                await self._use(self.tenant.rung)
                return True
            except WorkerLostError as error:
                log.warning("%s", error)
            except Exception as error:
                if out_of_memory(error) is not None and await self.step_down():
                    return True
                log.error("%s cannot be started again: %s", self.tenant.name, error)
        return self._give_up(f"the worker of {self.tenant.name} cannot be started again")

    async def _use(self, rung: int) -> None:
        await self._make_room()
        await self.in_thread(self.tenant.use, rung)

    def _give_up(self, why: str) -> bool:
        self.broken = why
        log.error("%s", why)
        return False

    # ------------------------------------------------------------------------------- ladder

    async def step_down(self, helps: Callable[[int], bool] = lambda rung: True) -> bool:
        """The largest smaller model that `helps` and loads; False where there is none. Where none
        of several loads, the first is gone too and the tenant is broken."""
        left = self.model
        rungs = [n for n in range(self.tenant.rung + 1, len(self.tenant.models)) if helps(n)]
        if not rungs:
            return False
        for rung in rungs:
            try:
                await self._use(rung)
            except Exception as error:
                if out_of_memory(error) is None:
                    raise
                continue
            self.counts.fallbacks += 1
            self._climb_at_s = time.monotonic() + self._climb_wait_s
            log.warning("%s stepped down from %s to %s", self.tenant.name, left, self.model)
            return True
        return self._give_up(f"no model of {self.tenant.name} fits into memory any more")

    @property
    def climb_in_s(self) -> float | None:
        """When a larger model is to be tried; None where there is none."""
        return max(0.0, self._climb_at_s - time.monotonic()) if self.tenant.rung else None

    async def look_up(self) -> None:
        """Nothing waits, and it is time: try the next larger model."""
        rung = self.tenant.rung
        try:
            await self._use(rung - 1)
        except Exception as error:
            self._climb_wait_s = min(2 * self._climb_wait_s, LONGEST_CLIMB_WAIT_S)
            self._climb_at_s = time.monotonic() + self._climb_wait_s
            log.warning("%s stays with %s: %s", self.tenant.name, self.model, error)
            await self.start_again()
            return
        self.counts.climbs += 1
        self._climb_wait_s = self.policy.climb_after_s
        self._climb_at_s = time.monotonic() + self._climb_wait_s
        log.info("%s went up to %s", self.tenant.name, self.model)

    # ------------------------------------------------------------------------- housekeeping

    async def after_call(self) -> None:
        """Between two calls: start again above the bound of fragmentation, or clean."""
        self._served += 1
        policy = self.policy
        if policy.restart_above < 1:
            share = await self.quietly(self.tenant.fragmentation)
            if share is not None and share > policy.restart_above:
                await self.start_again()
                return
        if policy.clean_every and self._served % policy.clean_every == 0:
            await self.clean()

    async def clean(self) -> None:
        """Have what the tenant's allocator keeps for later given back."""
        self.counts.cleanings += 1
        await self.quietly(self.tenant.clean)

    async def quietly(self, call: Callable[[], Result]) -> Result | None:
        """A call beside the requests: if the worker is lost over it, it is started again."""
        try:
            return await self.in_thread(call)
        except WorkerLostError as error:
            log.warning("%s", error)
            await self.start_again()
            return None

    async def in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, call, *arguments)
