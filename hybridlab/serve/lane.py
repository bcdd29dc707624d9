"""One tenant at work: batches, faults and what follows them, housekeeping."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hybridlab.errors import AudioError, WorkerLostError
from hybridlab.oom import out_of_memory
from hybridlab.serve import refusals
from hybridlab.serve.admission import Admission, Room
from hybridlab.serve.jobs import Job, Outcome, Said, Waiting
from hybridlab.serve.tenant import ServedTenant

log = logging.getLogger("hybridlab.serve")
Result = TypeVar("Result")
#: A worker that cannot be started again is given up after so many trials in a row.
MOST_FAILED_STARTS = 3
LONGEST_CLIMB_WAIT_S = 3600.0


class Turns:
    """Who may use the device: one tenant at a time, in the order in which they asked, or all."""

    def __init__(self, *, at_once: bool) -> None:
        self._lock = None if at_once else asyncio.Lock()
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._lock is None:
            yield
            return
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._lock.release()


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


@dataclass(eq=False)
class Lane:
    """Serves the jobs of one tenant, batch by batch."""

    tenant: ServedTenant
    #: What fits of each rung; the first of them is the tenant's own size.
    admissions: list[Admission]
    turns: Turns
    room: Room
    policy: Policy
    #: Told of each finished call: the phases with their seconds.
    on_spans: Callable[[str, str, float], None] = lambda tenant, phase, seconds: None
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.waiting = Waiting()
        self.at_work: list[Job] = []
        self.broken = ""
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.tenant.name)
        self._served = 0
        self._climb_wait_s = self.policy.climb_after_s
        self._climb_at_s = 0.0

    @property
    def admission(self) -> Admission:
        return self.admissions[self.tenant.rung]

    @property
    def model(self) -> str:
        return self.tenant.models[self.tenant.rung]

    def add(self, job: Job) -> None:
        self.waiting.add(job)
        self._arrived.set()

    async def open(self) -> None:
        """Bring the tenant up, on the largest rung that fits. Other faults are raised."""
        try:
            await self._in_thread(self.tenant.open)
        except Exception as error:
            if out_of_memory(error) is None:
                raise
            self.counts.ooms += 1
            if not await self._step_down():
                raise

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._something_to_do()
            async with self.turns.turn():
                batch = self._next()
                try:
                    await (self._work(batch) if batch else self._look_up())
                    await self._end_of_turn()
                except Exception:  # a fault of the orchestrator's own must not end the lane
                    log.exception("the lane of %s failed", self.tenant.name)
                    self._fail_all(batch, refusals.fault(self.model))

    def _next(self) -> list[Job]:
        """The next batch, without the jobs whose time is up."""
        now = time.monotonic()
        late = [job for job in self.waiting.jobs() if job.deadline_s <= now]
        self._fail_all(late, refusals.timed_out(self.policy.request_timeout_s))
        return self.waiting.take(self.policy.batch, self.admission.fits)

    async def close(self) -> None:
        if self.at_work:  # of jobs that nobody waits for
            self.tenant.kill()
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        await asyncio.to_thread(self.tenant.close)

    # ------------------------------------------------------------------------------ waiting

    async def _something_to_do(self) -> None:
        """A job, or the time to try a larger model."""
        while True:
            self.waiting.prune()
            if len(self.waiting):
                return
            self._arrived.clear()
            left = None
            if self.tenant.rung:
                left = max(0.0, self._climb_at_s - time.monotonic())
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    # --------------------------------------------------------------------------------- work

    async def _work(self, batch: list[Job]) -> None:
        self.at_work = batch
        self.counts.batches += 1
        self.counts.batched_jobs += len(batch)
        try:
            async with self.room.hold(self.admission.batch_bytes(batch)):
                await self._serve(batch)
        finally:
            self.at_work = []

    async def _serve(self, batch: list[Job]) -> None:
        began = time.monotonic()
        try:
            outcome = await self._in_time(batch)
        except WorkerLostError as error:
            log.warning("%s", error)
            await self._after_loss(batch)
        except Exception as error:
            if out_of_memory(error) is None:
                self._after_fault(batch, error)
            else:
                await self._after_out_of_memory(batch)
        else:
            self._deliver(batch, outcome, began)
        await self._housekeeping()

    async def _in_time(self, batch: list[Job]) -> Outcome:
        """The tenant's answer. A call that takes as long as a request may in all hangs: its process
        is ended, as nothing else would stop it."""
        work = asyncio.ensure_future(self._in_thread(self.tenant.serve, batch))
        done, _ = await asyncio.wait({work}, timeout=self.policy.request_timeout_s)
        if not done:
            self._fail_all(batch, refusals.timed_out(self.policy.request_timeout_s))
            self.tenant.kill()
        outcome = await work
        if len(outcome.texts) != len(batch):
            raise RuntimeError(f"{len(outcome.texts)} texts for {len(batch)} jobs")
        return outcome

    def _deliver(self, batch: list[Job], outcome: Outcome, began_s: float) -> None:
        worked_s = time.monotonic() - began_s
        for span in outcome.spans:
            self.on_spans(span.tenant, span.phase, span.end_s - span.start_s)
        for job, texts in zip(batch, outcome.texts, strict=True):
            self.on_spans(self.tenant.name, "wait", began_s - job.since_s)
            said = Said(
                texts=texts,
                model=self.model,
                instead_of=self.tenant.models[0] if self.tenant.rung else "",
                waited_s=began_s - job.since_s,
                worked_s=worked_s,
            )
            if not said.text.strip():
                self._fail(job, refusals.no_words(self.model))
            elif job.wanted:
                job.future.set_result(said)

    # ------------------------------------------------------------------------------- faults

    async def _after_loss(self, batch: list[Job]) -> None:
        """Start the worker again; each job is tried once more, by itself."""
        for job in batch:
            job.lost += 1
            if job.lost > 1:
                self._fail(job, refusals.lost(self.model))
        await self._start_again()
        self._again(batch)

    def _after_fault(self, batch: list[Job], error: Exception) -> None:
        log.error("%s failed: %s", self.tenant.name, error)
        if len(batch) > 1:  # one of them may be what the fault comes from
            self._again(batch)
            return
        if isinstance(error, AudioError):  # the request itself is at fault
            self._fail(batch[0], refusals.bad_request(str(error)))
        else:
            self._fail(batch[0], refusals.fault(self.model))

    async def _after_out_of_memory(self, batch: list[Job]) -> None:
        """One by one after a batch; a job that is alone gets a smaller model, if there is one."""
        self.counts.ooms += 1
        log.warning("%s ran out of memory over %d jobs", self.model, len(batch))
        if len(batch) > 1:
            await self._quietly(self.tenant.clean)
            self._again(batch)
        elif await self._step_down():
            self._again(batch)
        else:
            self._fail(batch[0], refusals.no_memory(self.model))
            await self._quietly(self.tenant.clean)

    def _again(self, batch: list[Job]) -> None:
        for job in batch:
            job.alone = True
        self.waiting.put_back([job for job in batch if job.wanted])

    def _fail(self, job: Job, reason: refusals.RefusalError) -> None:
        if job.wanted:
            job.future.set_exception(reason)

    def _fail_all(self, jobs: list[Job], reason: refusals.RefusalError) -> None:
        for job in jobs:
            self._fail(job, reason)

    async def _start_again(self) -> bool:
        """The same model in a fresh worker, or a smaller one where memory lacks by now; without
        either the lane is broken."""
        for _ in range(MOST_FAILED_STARTS):
            self.counts.restarts += 1
            try:
                await self._in_thread(self.tenant.use, self.tenant.rung)
                return True
            except WorkerLostError as error:
                log.warning("%s", error)
            except Exception as error:
                if out_of_memory(error) is not None and await self._step_down():
                    return True
                log.error("%s cannot be started again: %s", self.tenant.name, error)
        self._break(f"the worker of {self.tenant.name} cannot be started again")
        return False

    def _break(self, reason: str) -> None:
        self.broken = reason
        everyone = [*self.at_work, *self.waiting.jobs()]
        self._fail_all(everyone, refusals.not_ready(reason, code="broken"))
        log.error("%s", reason)

    # ------------------------------------------------------------------------------- ladder

    async def _step_down(self) -> bool:
        """The largest smaller model that loads; False where there is none."""
        left = self.model
        for rung in range(self.tenant.rung + 1, len(self.tenant.models)):
            try:
                await self._in_thread(self.tenant.use, rung)
            except Exception as error:
                if out_of_memory(error) is None:
                    raise
                continue
            self.counts.fallbacks += 1
            self._climb_at_s = time.monotonic() + self._climb_wait_s
            log.warning("%s stepped down from %s to %s", self.tenant.name, left, self.model)
            return True
        return False

    async def _look_up(self) -> None:
        """Nothing waits: try the next larger model where it is time."""
        rung = self.tenant.rung
        if not rung or time.monotonic() < self._climb_at_s:
            return
        try:
            await self._in_thread(self.tenant.use, rung - 1)
        except Exception as error:
            self._climb_wait_s = min(2 * self._climb_wait_s, LONGEST_CLIMB_WAIT_S)
            self._climb_at_s = time.monotonic() + self._climb_wait_s
            log.warning("%s stays with %s: %s", self.tenant.name, self.model, error)
            await self._in_thread(self.tenant.use, rung)
            return
        self.counts.climbs += 1
        self._climb_at_s = time.monotonic() + self._climb_wait_s
        log.info("%s went up to %s", self.tenant.name, self.model)

    # ------------------------------------------------------------------------- housekeeping

    async def _housekeeping(self) -> None:
        """Between two calls: start again above the bound of fragmentation, or clean."""
        self._served += 1
        policy = self.policy
        if policy.restart_above < 1:
            share = await self._quietly(self.tenant.fragmentation)
            if share is not None and share > policy.restart_above:
                await self._start_again()
                return
        if policy.clean_every and self._served % policy.clean_every == 0:
            self.counts.cleanings += 1
            await self._quietly(self.tenant.clean)

    async def _end_of_turn(self) -> None:
        """Weights that are swapped stay only for the lane's own next batch."""
        if self.tenant.swaps and (not len(self.waiting) or self.turns.waiting):
            await self._quietly(self.tenant.leave_device)

    async def _quietly(self, call: Callable[[], Result]) -> Result | None:
        """A call beside the requests: if the worker is lost over it, it is started again."""
        try:
            return await self._in_thread(call)
        except WorkerLostError as error:
            log.warning("%s", error)
            await self._start_again()
            return None

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, call, *arguments)
