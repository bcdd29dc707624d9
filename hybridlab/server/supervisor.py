"""What keeps a model available: restarts, fallback to smaller models and back, cache release."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import UnavailableError, WorkerLostError
from hybridlab.server.model_client import ModelClient
from hybridlab.server.settings import Settings

log = logging.getLogger("hybridlab.server")
Result = TypeVar("Result")
#: A worker that cannot be started is given up after so many attempts in a row.
MAX_FAILED_STARTS = 3
MAX_RETRY_LARGER_S = 3600.0


def _count(what: str) -> Any:
    return field(default=0, metadata={"help": what})


@dataclass
class Counts:
    """What has happened to a model since the start; `/metrics` has each under its name."""

    ooms: int = _count("Allocations that failed")
    fallbacks: int = _count("Changes to a smaller model")
    returns_to_larger: int = _count("Changes back to a larger model")
    restarts: int = _count("Workers restarted")
    cache_clears: int = _count("Times that freed memory was given back")
    batches: int = _count("Calls to the model")
    batched_jobs: int = _count("Requests in these calls")
    overflows: int = _count("Requests whose numbers overflowed, so that they got no text")


class ModelSupervisor:
    """Calls a model between its requests, on a thread. `failed` says why it can never serve again;
    '' as long as it can."""

    def __init__(
        self,
        client: ModelClient,
        settings: Settings,
        free_memory: Callable[[], Awaitable[None]],
    ) -> None:
        self.client = client
        self.settings = settings
        self._free_memory = free_memory  # before a model is loaded beside others that are at work
        self.counts = Counts()
        self.failed = ""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=client.role)
        self._retry_wait_s = settings.retry_larger_after_s
        self._retry_at_s = 0.0

    @property
    def model(self) -> str:
        return self.client.models[self.client.active]

    async def load(self) -> None:
        """Load the largest model that fits: `UnavailableError` where none does. Other faults are
        raised."""
        try:
            await self.in_thread(self.client.load)
        except Exception as error:
            failure = out_of_memory(error)
            if failure is None:
                raise
            self.counts.ooms += 1
            if not await self.fall_back():
                smallest = self.client.models[-1]
                raise UnavailableError(
                    f"{smallest} does not fit into what is free: {failure.message}; hybridlab plan "
                    "says what would"
                ) from None

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        await self.client.close()

    async def restart(self) -> bool:
        """The same model in a fresh worker, or a smaller one where memory lacks by now; False where
        neither starts: the model has failed."""
        for _ in range(MAX_FAILED_STARTS):
            self.counts.restarts += 1
            try:
                await self._switch_to(self.client.active)
                return True
            except WorkerLostError as error:
                log.warning("%s", error)
            except Exception as error:
                if out_of_memory(error) is not None and await self.fall_back():
                    return True
                log.error("the %s cannot be restarted: %s", self.client.role, error)
        return self._fail(f"the worker of the {self.client.role} cannot be restarted")

    async def _switch_to(self, index: int) -> None:
        await self._free_memory()
        await self.in_thread(self.client.switch_to, index)

    def _fail(self, why: str) -> bool:
        self.failed = why
        log.error("%s", why)
        return False

    # ----------------------------------------------------------------------------- fallback

    async def fall_back(self, helps: Callable[[int], bool] = lambda index: True) -> bool:
        """Load the largest smaller model that `helps`; False where there is none. Where none of
        several loads, the first is gone too and the model has failed."""
        before = self.model
        candidates = range(self.client.active + 1, len(self.client.models))
        helping = [index for index in candidates if helps(index)]
        if not helping:
            return False
        for index in helping:
            try:
                await self._switch_to(index)
            except Exception as error:
                if out_of_memory(error) is None:
                    raise
                continue
            self.counts.fallbacks += 1
            self._retry_at_s = time.monotonic() + self._retry_wait_s
            log.warning("the %s fell back from %s to %s", self.client.role, before, self.model)
            return True
        return self._fail(f"no model of the {self.client.role} fits into memory any more")

    @property
    def retry_larger_in_s(self) -> float | None:
        """When a larger model is to be tried; None where there is none."""
        return max(0.0, self._retry_at_s - time.monotonic()) if self.client.active else None

    async def try_larger(self) -> None:
        """No request waits, and it is time: load the next larger model."""
        try:
            await self._switch_to(self.client.active - 1)
        except Exception as error:
            self._retry_wait_s = min(2 * self._retry_wait_s, MAX_RETRY_LARGER_S)
            self._retry_at_s = time.monotonic() + self._retry_wait_s
            log.warning("the %s stays with %s: %s", self.client.role, self.model, error)
            await self.restart()
            return
        self.counts.returns_to_larger += 1
        self._retry_wait_s = self.settings.retry_larger_after_s
        self._retry_at_s = time.monotonic() + self._retry_wait_s
        log.info("the %s is %s again", self.client.role, self.model)

    async def release_cache(self) -> None:
        self.counts.cache_clears += 1
        await self.call_quietly(self.client.release_cache)

    async def call_quietly(self, call: Callable[[], Result]) -> Result | None:
        """A call beside the requests: if the worker is lost over it, it is restarted."""
        try:
            return await self.in_thread(call)
        except WorkerLostError as error:
            log.warning("%s", error)
            await self.restart()
            return None

    async def in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, call, *arguments)
