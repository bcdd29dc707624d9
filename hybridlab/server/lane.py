"""One tenant at work: turns, batches, and what becomes of each job after a fault."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hybridlab.devices.oom import out_of_memory
from hybridlab.errors import AudioError, WorkerLostError
from hybridlab.models.base import Listener
from hybridlab.server import refusals
from hybridlab.server.admission import Admission
from hybridlab.server.jobs import Job, Kind, Outcome, Said, Waiting
from hybridlab.server.room import Room
from hybridlab.server.tenant import WITHOUT_TEXT, ServedTenant
from hybridlab.server.upkeep import Counts, Policy, Upkeep

log = logging.getLogger("hybridlab.server")


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

    def __post_init__(self) -> None:
        self.waiting = Waiting()
        self.at_work: list[Job] = []
        #: The lanes of the tenants that share the device with this one.
        self.neighbours: list[Lane] = []
        self._calls = asyncio.Lock()  # one call to the tenant at a time
        self.upkeep = Upkeep(self.tenant, self.policy, self._neighbours_give_back)
        self._arrived = asyncio.Event()

    @property
    def counts(self) -> Counts:
        return self.upkeep.counts

    @property
    def broken(self) -> str:
        return self.upkeep.broken

    @property
    def admission(self) -> Admission:
        return self.admissions[self.tenant.rung]

    @property
    def model(self) -> str:
        return self.upkeep.model

    def add(self, job: Job) -> None:
        self.waiting.add(job)
        self._arrived.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._something_to_do()
            async with self.turns.turn():
                self.room.look()
                batch = self.waiting.take(self.policy.batch, self.admission.fits)
                try:
                    if batch or self.upkeep.climb_in_s == 0:
                        await self._turn(batch)
                except Exception:  # a fault of the orchestrator's own must not end the lane
                    log.exception("the lane of %s failed", self.tenant.name)
                    self._fail_all(batch, refusals.fault(self.model))

    async def close(self) -> None:
        await self.upkeep.close()

    # ------------------------------------------------------------------------------ waiting

    async def _something_to_do(self) -> None:
        """A job, or the time to try a larger model."""
        while True:
            self.waiting.prune()
            if len(self.waiting):
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), self.upkeep.climb_in_s)
            except TimeoutError:
                return

    # ------------------------------------------------------------------------------- memory

    def check(self, kind: Kind, audio_s: float, *, asked_tokens: int | None = None) -> None:
        """`RefusalError` for an audio that nobody can serve now. Where others have come who hold
        the memory for it, a smaller model in this one's place may."""
        try:
            self.admission.check(kind, audio_s, asked_tokens=asked_tokens)
        except refusals.RefusalError as refusal:
            tokens = self.admission.tokens(audio_s, asked_tokens)
            smaller = range(self.tenant.rung + 1, len(self.admissions))
            helped = any(self._would_fit(rung, audio_s, tokens) for rung in smaller)
            if refusal.code != refusals.OUT_OF_MEMORY or not helped:
                raise

    def _would_fit(self, rung: int, audio_s: float, tokens: int) -> bool:
        """Whether a smaller model and a call fit into what is free and this model's place."""
        free = self.room.memory.room_bytes() if self.room.memory is not None else None
        if free is None:
            return True
        smaller = self.admissions[rung]
        kept = 0 if smaller.swapped else smaller.weights_bytes
        call = smaller.bytes_of(audio_s=audio_s, new_tokens=tokens)
        at_work = kept + smaller.with_slack(call)
        place = 0 if self.admission.swapped else self.admission.weights_bytes
        return max(smaller.load_peak_bytes, at_work) <= free + place

    def _lacks(self, n_bytes: int) -> bool:
        """Whether the device has less for a call than it takes, as others keep what they freed."""
        free = self.room.memory.free_bytes() if self.room.memory is not None else None
        if free is None:
            return False
        own = self.tenant.cached_bytes + self.tenant.here_bytes
        return self.admission.with_slack(n_bytes) > free + own

    async def _neighbours_give_back(self) -> None:
        """What they keep for later is this tenant's now; one that is at work keeps it."""
        for lane in self.neighbours:
            if lane.tenant.cached_bytes and not lane._calls.locked():
                async with lane._calls:
                    await lane.upkeep.clean()

    # --------------------------------------------------------------------------------- work

    async def _turn(self, batch: list[Job]) -> None:
        """Work on the batch, or try a larger model without one, in as much room as that takes."""
        n_bytes = self.admission.batch_bytes(batch) if batch else 0
        starved = any(job.starved for job in batch)
        alone = not batch or starved or self._lacks(n_bytes)
        self.at_work = batch
        try:
            async with self.room.hold(n_bytes, alone=alone), self._calls:
                if starved or (alone and self._lacks(n_bytes)):
                    await self._neighbours_give_back()
                await (self._work(batch) if batch else self.upkeep.look_up())
                await self._end_of_turn()
        finally:
            self.at_work = []

    async def _work(self, batch: list[Job]) -> None:
        self.counts.batches += 1
        self.counts.batched_jobs += len(batch)
        await self._serve(batch)
        if self.broken:
            everyone = [*batch, *self.waiting.jobs()]
            self._fail_all(everyone, refusals.not_ready(self.broken, code="broken"))

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
        await self.upkeep.after_call()

    async def _in_time(self, batch: list[Job]) -> Outcome:
        """The tenant's answer. A call that takes as long as a request may in all hangs: its process
        is ended, as nothing else would stop it."""
        seconds = self.policy.request_timeout_s
        try:
            async with asyncio.timeout(seconds):
                outcome = await self.tenant.serve(batch, self._listener(batch))
        except TimeoutError:
            self._fail_all(batch, refusals.timed_out(seconds))
            raise WorkerLostError(
                f"{self.tenant.name} was ended, as one call took {seconds:g} s"
            ) from None
        if len(outcome.texts) != len(batch):
            raise RuntimeError(f"{len(outcome.texts)} texts for {len(batch)} jobs")
        return outcome

    def _listener(self, batch: list[Job]) -> Listener | None:
        """Brings words to the jobs whose clients read them as they come; None where no job has such
        a client."""
        growing = [job.growing for job in batch if job.growing is not None]
        if not growing:
            return None
        for text in growing:
            text.begin()

        def hear(pieces: Sequence[str]) -> bool:
            self._spread(batch, pieces)
            return any(job.wanted for job in batch)

        return hear

    def _spread(self, batch: list[Job], pieces: Sequence[str]) -> None:
        for job, piece in zip(batch, pieces, strict=True):
            if job.wanted and job.growing is not None and piece and not job.growing.add(piece):
                self._fail(job, refusals.changed(self.model))

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
            if not said.text.strip() and not self.model.endswith(WITHOUT_TEXT):
                self._fail(job, refusals.no_words(self.model))
            elif job.growing is not None and not job.growing.goes_with(said.text):
                self._fail(job, refusals.changed(self.model))
            elif job.wanted:
                job.future.set_result(said)

    # ------------------------------------------------------------------------------- faults

    async def _after_loss(self, batch: list[Job]) -> None:
        """Start the worker again; each job is tried once more, by itself."""
        for job in batch:
            job.lost += 1
            if job.lost > 1:
                self._fail(job, refusals.lost(self.model))
        await self.upkeep.start_again()
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
        """One by one after a batch; a job that was alone is tried once more, when the others have
        given back what they can, and then gets a smaller model if that helps."""
        self.counts.ooms += 1
        log.warning("%s ran out of memory over %d jobs", self.model, len(batch))
        await self.upkeep.clean()
        if len(batch) > 1 or not batch[0].starved:
            batch[0].starved = len(batch) == 1
            self._again(batch)
            return
        (job,) = batch
        self.room.look(idle=True)  # it is alone on the device, and its call has ended
        seconds, tokens = job.sound.seconds, job.max_new_tokens
        if await self.upkeep.step_down(lambda rung: self._would_fit(rung, seconds, tokens)):
            self._again(batch)
        else:
            self._fail(job, self._no_memory(job))

    def _no_memory(self, job: Job) -> refusals.RefusalError:
        n_bytes = self.admission.with_slack(self.admission.batch_bytes([job]))
        crowd = self.room.crowded_by(n_bytes, idle=True)
        if crowd is None:
            return refusals.no_memory(self.model)
        return refusals.crowded_out(crowd.n_bytes, crowd.of)

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

    async def _end_of_turn(self) -> None:
        """Weights that are swapped stay only for the lane's own next batch."""
        if self.tenant.swaps and (not len(self.waiting) or self.turns.waiting):
            await self.upkeep.quietly(self.tenant.leave_device)
