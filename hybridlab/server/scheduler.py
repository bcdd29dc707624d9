"""One model at work: its queue, turns on the device, batches, and what becomes of each job after a
fault."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from hybridlab.devices.out_of_memory import out_of_memory
from hybridlab.errors import AudioError, WorkerLostError
from hybridlab.models.base import TokenCallback
from hybridlab.server import errors
from hybridlab.server.admission import Admission
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import (
    BatchResult,
    InferenceJob,
    InferenceParams,
    InferenceResult,
    RequestQueue,
)
from hybridlab.server.memory import MemoryBudget
from hybridlab.server.model_client import ModelClient
from hybridlab.server.model_names import WITHOUT_TEXT
from hybridlab.server.settings import Settings
from hybridlab.server.supervisor import ModelSupervisor

log = logging.getLogger("hybridlab.server")


@dataclass(eq=False)
class ModelScheduler:
    """Serves the jobs of one model, batch by batch."""

    client: ModelClient
    #: What fits, for each of the client's models.
    admissions: list[Admission]
    #: Held by the model that uses the device, in the order in which they ask; None: all may.
    device_lock: asyncio.Lock | None
    budget: MemoryBudget
    settings: Settings
    #: Told of each finished call: role, phase, seconds.
    on_phase: Callable[[str, str, float], None] = lambda role, phase, seconds: None

    def __post_init__(self) -> None:
        self.role = self.client.role
        self.max_batch = self.settings.batch if self.client.batches else 1
        self.queue = RequestQueue()
        self.at_work: list[InferenceJob] = []
        #: Of the models that share the device with this one.
        self.neighbours: list[ModelScheduler] = []
        self.supervisor = ModelSupervisor(self.client, self.settings, self._neighbours_give_back)
        self.counts = self.supervisor.counts
        self._calls = asyncio.Semaphore(self.client.max_calls)
        self._arrived = asyncio.Event()

    @property
    def failed(self) -> str:
        return self.supervisor.failed

    @property
    def model(self) -> str:
        return self.supervisor.model

    @property
    def admission(self) -> Admission:
        return self.admissions[self.client.active]

    def add(self, job: InferenceJob) -> None:
        self.queue.add(job)
        self._arrived.set()

    async def run(self) -> None:
        """Until cancelled; as often at the same time as calls may be."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.client.max_calls):
                group.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._something_to_do()
            async with self.device_lock or nullcontext():
                self.budget.refresh()
                batch = self.queue.take(self.max_batch, self.admission.fits)
                try:
                    if batch or self.supervisor.retry_larger_in_s == 0:
                        await self._turn(batch)
                except Exception:  # a fault of the scheduler's own must not end it
                    log.exception("the scheduler of the %s failed", self.role)
                    _fail(batch, errors.internal_error(self.model))

    async def _something_to_do(self) -> None:
        """A job, or the time to try a larger model."""
        while True:
            self.queue.prune()
            if len(self.queue):
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), self.supervisor.retry_larger_in_s)
            except TimeoutError:
                return

    # ------------------------------------------------------------------------------- memory

    def check(self, params: InferenceParams) -> None:
        """`ApiError` for an audio that cannot be served now. Where other programs have come and
        hold the memory for it, a smaller model in this one's place may serve it."""
        try:
            self.admission.check(params)
        except ApiError as error:
            tokens = self.admission.tokens(params)
            smaller = range(self.client.active + 1, len(self.admissions))
            helped = any(self._would_fit(index, params, tokens) for index in smaller)
            if error.code != errors.OUT_OF_MEMORY or not helped:
                raise

    def _would_fit(self, index: int, params: InferenceParams, tokens: int) -> bool:
        """Whether a smaller model and a call fit into what is free and this model's place."""
        memory = self.budget.memory
        free = memory.available_bytes() if memory is not None else None
        if free is None:
            return True
        smaller = self.admissions[index]
        kept = 0 if smaller.swapped else smaller.weights_bytes
        call = smaller.bytes_of(
            audio_s=params.audio.seconds, new_tokens=tokens, beams=params.options.beams
        )
        at_work = kept + smaller.with_slack(call)
        place = 0 if self.admission.swapped else self.admission.weights_bytes
        return max(smaller.load_peak_bytes, at_work) <= free + place

    def _lacks(self, n_bytes: int) -> bool:
        """Whether the device has less for a call than it takes, as others keep what they freed."""
        free = self.budget.memory.free_bytes() if self.budget.memory is not None else None
        if free is None:
            return False
        own = self.client.cached_bytes + self.client.offloadable_bytes
        return self.admission.with_slack(n_bytes) > free + own

    async def _neighbours_give_back(self) -> None:
        """What they keep for later is this model's now; one that is at work keeps it."""
        for other in self.neighbours:
            if other.client.cached_bytes and not other._calls.locked():
                async with other._calls:
                    await other.supervisor.release_cache()

    # --------------------------------------------------------------------------------- work

    async def _turn(self, batch: list[InferenceJob]) -> None:
        """Serve the batch, or try a larger model without one, in as much memory as that takes."""
        n_bytes = self.admission.batch_bytes(batch) if batch else 0
        after_oom = any(job.after_oom for job in batch)
        alone = not batch or after_oom or self._lacks(n_bytes)
        self.at_work += batch
        try:
            async with self.budget.hold(n_bytes, alone=alone), self._calls:
                if after_oom or (alone and self._lacks(n_bytes)):
                    await self._neighbours_give_back()
                await (self._work(batch) if batch else self.supervisor.try_larger())
                await self._end_of_turn()
        finally:
            self.at_work = [job for job in self.at_work if job not in batch]

    async def _work(self, batch: list[InferenceJob]) -> None:
        self.counts.batches += 1
        self.counts.batched_jobs += len(batch)
        await self._serve(batch)
        if self.failed:
            failure = errors.not_ready(self.failed, code="model_failed")
            _fail([*batch, *self.queue.jobs()], failure)

    async def _serve(self, batch: list[InferenceJob]) -> None:
        began = time.monotonic()
        try:
            found = await self._infer(batch)
        except WorkerLostError as error:
            log.warning("%s", error)
            await self._after_loss(batch)
        except ApiError as error:  # what another server said
            _fail(batch, error)
        except Exception as error:
            if out_of_memory(error) is None:
                self._after_error(batch, error)
            else:
                await self._after_out_of_memory(batch)
        else:
            self._deliver(batch, found, began)

    async def _infer(self, batch: list[InferenceJob]) -> BatchResult:
        """A call that takes as long as a request may in all hangs: its process is ended, as nothing
        else would stop it."""
        seconds = self.settings.request_timeout_s
        try:
            async with asyncio.timeout(seconds):
                found = await self.client.infer(batch, self._listener(batch))
        except TimeoutError:
            _fail(batch, errors.timed_out(seconds))
            raise WorkerLostError(
                f"the worker of the {self.role} was ended, as one call took {seconds:g} s"
            ) from None
        if len(found.texts) != len(batch):
            raise RuntimeError(f"{len(found.texts)} texts for {len(batch)} jobs")
        return found

    def _listener(self, batch: list[InferenceJob]) -> TokenCallback | None:
        """Brings text to the jobs that stream it; None where no job does."""
        streams = [job.stream for job in batch if job.stream is not None]
        if not streams:
            return None
        for stream in streams:
            stream.restart()

        def on_text(pieces: Sequence[str]) -> bool:
            for job, piece in zip(batch, pieces, strict=True):
                if job.pending and job.stream is not None and piece and not job.stream.add(piece):
                    job.fail(errors.answer_changed(self.model))
            return any(job.pending for job in batch)

        return on_text

    def _deliver(self, batch: list[InferenceJob], found: BatchResult, began_s: float) -> None:
        work_s = time.monotonic() - began_s
        for span in found.spans:
            self.on_phase(self.role, span.phase, span.end_s - span.start_s)
        for job, texts in zip(batch, found.texts, strict=True):
            self.on_phase(self.role, "queue", began_s - job.arrived_s)
            result = found.upstream or InferenceResult(
                texts=texts,
                model=self.model,
                instead_of=self.client.models[0] if self.client.active else "",
                queue_time_s=began_s - job.arrived_s,
                work_s=work_s,
            )
            self._deliver_one(job, result)

    def _deliver_one(self, job: InferenceJob, result: InferenceResult) -> None:
        answers = job.params.kind == "answer" and not result.model.endswith(WITHOUT_TEXT)
        if dtype := self.client.overflows_in:
            self.counts.overflows += 1
            job.fail(errors.overflow(result.model, dtype))
        elif answers and not result.text.strip():  # a transcript without words: no speech
            job.fail(errors.empty_answer(result.model))
        elif job.stream is not None and not job.stream.agrees_with(result.text):
            job.fail(errors.answer_changed(result.model))
        elif job.pending:
            job.future.set_result(result)

    # ------------------------------------------------------------------------------- faults

    async def _after_loss(self, batch: list[InferenceJob]) -> None:
        """Restart the worker; each job is tried once more, by itself."""
        for job in batch:
            job.losses += 1
            if job.losses > 1:
                job.fail(errors.worker_lost(self.model))
        await self.supervisor.restart()
        self._retry_alone(batch)

    def _after_error(self, batch: list[InferenceJob], error: Exception) -> None:
        if len(batch) > 1:  # one of them may be what the fault comes from
            log.error("the %s failed over %d jobs: %s", self.role, len(batch), error)
            self._retry_alone(batch)
        elif isinstance(error, AudioError):  # the request itself is at fault
            batch[0].fail(errors.bad_request(str(error)))
        else:
            log.error("the %s failed: %s", self.role, error)
            batch[0].fail(errors.internal_error(self.model))

    async def _after_out_of_memory(self, batch: list[InferenceJob]) -> None:
        """One by one after a batch; a job that was alone is tried once more, when the others have
        given back what they can, and then gets a smaller model if that helps."""
        self.counts.ooms += 1
        log.warning("%s ran out of memory over %d jobs", self.model, len(batch))
        await self.supervisor.release_cache()
        if len(batch) > 1 or not batch[0].after_oom:
            batch[0].after_oom = len(batch) == 1
            self._retry_alone(batch)
            return
        (job,) = batch
        self.budget.refresh(idle=True)  # it is alone on the device, and its call has ended
        params, tokens = job.params, job.max_new_tokens
        if await self.supervisor.fall_back(lambda n: self._would_fit(n, params, tokens)):
            self._retry_alone(batch)
        else:
            n_bytes = self.admission.with_slack(self.admission.batch_bytes([job]))
            taken = self.budget.taken_by_others(n_bytes, idle=True)
            job.fail(taken or errors.no_memory(self.model))

    def _retry_alone(self, batch: list[InferenceJob]) -> None:
        for job in batch:
            job.alone = True
        self.queue.put_back([job for job in batch if job.pending])

    async def _end_of_turn(self) -> None:
        """Weights that are swapped stay only for the model's own next batch."""
        others_wait = any(len(other.queue) for other in self.neighbours)
        if self.client.swaps and (others_wait or not len(self.queue)):
            await self.supervisor.call_quietly(self.client.offload)


def _fail(jobs: list[InferenceJob], error: ApiError) -> None:
    for job in jobs:
        job.fail(error)
