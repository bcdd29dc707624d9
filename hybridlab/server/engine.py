"""The orchestrator: takes jobs in as long as they fit, hands them to lanes, loses none."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from hybridlab.server import refusals
from hybridlab.server.jobs import Growing, Job, Kind, Said, Sound
from hybridlab.server.lane import Lane

KINDS: tuple[Kind, ...] = ("transcription", "answer")
#: Decoded audio of all requests together, 1.8 GB of this process: a file of a few KB may hold 40
#: minutes, so that a queue of requests says nothing of their bytes.
HELD_AUDIO_S = 8 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a request wants of one tenant. `max_new_tokens` None: as many as a transcript has;
    `stream`: its words as they come (`Job.words`)."""

    tenant: str
    kind: Kind
    sound: Sound
    question: str = ""
    language: str = "en"
    max_new_tokens: int | None = None
    stream: bool = False


class Engine:
    """Lanes by the name of their tenant. All of it belongs to one event loop."""

    def __init__(self, lanes: Mapping[str, Lane], *, queue: int, request_timeout_s: float) -> None:
        self.lanes = dict(lanes)
        for lane in self.lanes.values():
            lane.neighbours = [other for other in self.lanes.values() if other is not lane]
        self.queue = queue
        self.request_timeout_s = request_timeout_s
        self.ready = self.draining = False
        self._unfinished: set[Job] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._pace_s: dict[str, float] = {}

    async def load(self) -> None:
        """Bring up all tenants one after the other. What fails to load is raised."""
        for lane in self.lanes.values():
            await lane.upkeep.open()

    def start(self) -> None:
        """Serve from now on."""
        # Whisper's lane, which is loaded last, asks for the device first: of two that wait alike
        # the transcript is done sooner
        lanes = reversed(self.lanes.values())
        self._tasks = [asyncio.create_task(lane.run()) for lane in lanes]
        self.ready = True

    # ------------------------------------------------------------------------------ admission

    def submit(self, *wishes: Wish) -> list[Job]:
        """Accept all of a request's wishes, or none: `RefusalError`."""
        self.check(*wishes)
        return [self._accept(wish) for wish in wishes]

    def check(self, *wishes: Wish) -> None:
        """`RefusalError` where these would not be accepted now."""
        if self.draining:
            raise refusals.not_ready("the server is stopping", code="stopping")
        if not self.ready:
            raise refusals.not_ready("the models are still loading")
        for wish in wishes:
            lane = self.lanes[wish.tenant]
            if lane.broken:
                raise refusals.not_ready(lane.broken, code="broken")
            lane.check(wish.kind, wish.sound.seconds, asked_tokens=wish.max_new_tokens)
        self.check_queue(*((wish.tenant, wish.kind) for wish in wishes))
        self._check_held(wishes)

    def check_queue(self, *asked: tuple[str, Kind]) -> None:
        """`RefusalError` where the queues have no place for these."""
        for tenant, kind in set(asked):
            lane = self.lanes[tenant]
            if asked.count((tenant, kind)) > self.queue:  # never, however often it comes again
                raise refusals.too_many_questions(self.queue)
            lane.waiting.prune()
            if lane.waiting.count(kind) + asked.count((tenant, kind)) > self.queue:
                raise refusals.queue_full(self._retry_after_s(lane))

    def _check_held(self, wishes: tuple[Wish, ...]) -> None:
        """The wishes of one request share their sound."""
        held = {id(job.sound): job.sound.seconds for job in self._unfinished}
        asked = {id(wish.sound): wish.sound.seconds for wish in wishes}
        if held and sum((held | asked).values()) > HELD_AUDIO_S:
            raise refusals.queue_full(max(map(self._retry_after_s, self.lanes.values())))

    def _accept(self, wish: Wish) -> Job:
        lane = self.lanes[wish.tenant]
        loop = asyncio.get_running_loop()
        job = Job(
            kind=wish.kind,
            sound=wish.sound,
            question=wish.question,
            language=wish.language,
            max_new_tokens=lane.admission.tokens(wish.sound.seconds, wish.max_new_tokens),
            future=loop.create_future(),
            growing=Growing() if wish.stream else None,
        )
        self._unfinished.add(job)
        timer = loop.call_later(self.request_timeout_s, self._time_is_up, job)
        job.future.add_done_callback(lambda _: self._finished(job, lane, timer))
        lane.add(job)
        return job

    def _finished(self, job: Job, lane: Lane, timer: asyncio.TimerHandle) -> None:
        self._unfinished.discard(job)
        timer.cancel()
        if job.future.cancelled() or job.future.exception() is not None:
            return
        said: Said = job.future.result()
        before = self._pace_s.get(lane.tenant.name, said.worked_s)
        self._pace_s[lane.tenant.name] = 0.8 * before + 0.2 * said.worked_s

    def _retry_after_s(self, lane: Lane) -> int:
        """When a place should be free: half the queue at the lane's pace of late."""
        batches = len(lane.waiting) / max(1, lane.policy.batch) / 2
        return max(1, math.ceil(batches * self._pace_s.get(lane.tenant.name, 1.0)))

    def _time_is_up(self, job: Job) -> None:
        if job.wanted:
            job.future.set_exception(refusals.timed_out(self.request_timeout_s))

    # ------------------------------------------------------------------------------- the end

    @property
    def broken(self) -> str:
        """Why a tenant can never serve again; '' as long as all can."""
        return next((lane.broken for lane in self.lanes.values() if lane.broken), "")

    async def drain(self) -> None:
        """Accept nothing more, and wait until everything accepted has its answer."""
        self.draining = True
        while self._unfinished:
            await asyncio.wait([job.future for job in self._unfinished])

    async def close(self) -> None:
        """End the lanes and their tenants, whatever they are at."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes.values():
            await lane.close()
