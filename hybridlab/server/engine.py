"""Everything behind the routes: accepts jobs as long as they fit, and loses none of them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace

from hybridlab import catalog
from hybridlab.errors import ParameterError, UnavailableError
from hybridlab.models.fetch_progress import FetchProgress, line_printer
from hybridlab.server import errors
from hybridlab.server.audio_decoder import AudioDecoder
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import DecodedAudio, InferenceJob, InferenceParams, InferenceResult, Kind
from hybridlab.server.metrics import Metrics
from hybridlab.server.model_names import known_names
from hybridlab.server.model_pool import ModelPool
from hybridlab.server.scheduler import ModelScheduler
from hybridlab.server.settings import Role, Settings

log = logging.getLogger("hybridlab.server")
LOADING = "the models are still loading"
#: Decoded audio of all requests together, 1.8 GB of this process: a file of a few KB may hold 40
#: minutes, so that the number of requests says nothing of their bytes.
MAX_DECODED_S = 8 * 3600.0
#: Between two questions whether another server is ready.
HEALTH_EVERY_S = 0.2


class Engine:
    """A scheduler for each model, by role. `start` loads, `stop` ends; in between `draining` means
    that nothing more is accepted. All of it belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.created = int(time.time())
        self.schedulers: dict[Role, ModelScheduler] = {}
        self.decoder: AudioDecoder | None = None
        self.pool: ModelPool | None = None
        self.ready = self.draining = False
        self.loading = LOADING  # what is waited for before it is ready
        self._log_fetching = line_printer(log.info)
        self._unfinished: set[InferenceJob] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._pace_s: dict[Role, float] = {}

    async def start(self) -> None:
        """Workers, weights, limits; what fails to load is raised."""
        settings = self.settings
        self.pool = await asyncio.to_thread(ModelPool, settings, self._fetching)
        self.loading = LOADING
        decoder = AudioDecoder(settings)
        self.attach(self.pool.schedulers(), decoder)
        await decoder.start()
        self.metrics.watch(self.schedulers, self.pool, decoder)
        await self.load()
        await asyncio.to_thread(self.pool.measure_budget)
        self.run()

    def _fetching(self, state: FetchProgress) -> None:
        """How far the weights are, for the log and for whoever asks whether this is ready. A server
        that is told to stop waits for no download."""
        if self.draining:
            raise UnavailableError("stopped while weights were fetched")
        self.loading = state.words()
        self._log_fetching(state)

    def attach(self, schedulers: Mapping[Role, ModelScheduler], decoder: AudioDecoder) -> None:
        self.schedulers = dict(schedulers)
        self.decoder = decoder
        for own in self.schedulers.values():
            own.neighbours = [other for other in self.schedulers.values() if other is not own]
            own.on_phase = self.metrics.phase_done

    async def load(self) -> None:
        """All models, one after the other. What fails to load is raised; another server is waited
        for."""
        for scheduler in self.schedulers.values():
            await scheduler.supervisor.load()
            said = ""
            while reason := await scheduler.client.health():
                if reason != said:
                    log.info("waiting: %s", reason)
                said = reason
                await asyncio.sleep(HEALTH_EVERY_S)
        for name, model in self.settings.aliases.items():
            if self._role_named(name) is None:
                raise ParameterError(f"--model-alias {name}={model}: {model!r} is not served")

    def run(self) -> None:
        """Serve from now on."""
        # the ASR, which is loaded last, asks for the device first: of two that wait alike the
        # transcript is done sooner
        schedulers = reversed(self.schedulers.values())
        self._tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
        self.ready = True

    async def stop(self) -> None:
        """End the models, whatever they are at."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for scheduler in self.schedulers.values():
            await scheduler.supervisor.close()
        if self.decoder is not None:
            self.decoder.close()
        if self.pool is not None:
            await asyncio.to_thread(self.pool.close)

    # --------------------------------------------------------------------------------- state

    @property
    def failed(self) -> str:
        """Why a model can never serve again; '' as long as all can."""
        failed = (scheduler.failed for scheduler in self.schedulers.values())
        return next((why for why in failed if why), "")

    async def not_ready(self) -> str:
        """Why requests are not accepted now; '' where they are."""
        if not self.ready:
            return self.loading
        if self.draining:
            return "the server is stopping"
        health = await asyncio.gather(*(s.client.health() for s in self.schedulers.values()))
        return self.failed or "; ".join(why for why in health if why)

    def roles(self) -> list[Role]:
        """Of the models that are served."""
        self._check_ready()
        return list(self.schedulers)

    def model_ids(self) -> list[str]:
        """The models as they are served now."""
        return [self.schedulers[role].model for role in self.roles()]

    def _check_ready(self) -> None:
        if not self.ready:
            raise errors.not_ready(self.loading)

    # ------------------------------------------------------------------------------ requests

    def role_of(self, model: str) -> Role:
        """Which model a client names, in any case: a name of --model-alias, or one of
        `known_names`."""
        self._check_ready()
        role = self._role_named(model)
        if role is None:
            ids = ", ".join(self.model_ids())
            message = f"the model {model[:60]!r} is not served; choose one of: {ids}"
            raise ApiError(404, "model_not_found", message)
        return role

    def _role_named(self, model: str) -> Role | None:
        name = model.lower()
        name = self.settings.aliases.get(name, name).lower()
        for role, scheduler in self.schedulers.items():
            if name in known_names(role, scheduler.client.models):
                return role
        return None

    def asr(self) -> Role:
        """Which model transcribes in a hybrid request."""
        self._check_ready()
        if "llm" not in self.schedulers:
            raise errors.bad_request("this server has no LLM and answers no questions")
        return "asr" if "asr" in self.schedulers else "llm"

    def language(self, role: Role, asked: str | None) -> str:
        """What a model is asked for, `None` as --language says. `ApiError` for what it does not
        know."""
        try:
            return self.schedulers[role].client.language(
                self.settings.language if asked is None else asked
            )
        except ParameterError as error:
            raise errors.bad_request(f"language: {error}") from None

    def answer_tokens(self, asked: int | None) -> int:
        return min(asked or catalog.ANSWER_TOKENS, self.settings.max_new_tokens)

    async def decode(self, data: bytes, role: Role, kind: Kind) -> DecodedAudio:
        """Not before it is clear that the request would not be refused anyway."""
        self._check_accepting()
        self._check_queue((role, kind))
        assert self.decoder is not None
        began = time.perf_counter()
        audio = await self.decoder.decode(data)
        self.metrics.phase_done("server", "decode-upload", time.perf_counter() - began)
        return replace(audio, encoded=data) if self.settings.urls else audio

    def submit(self, *asked: InferenceParams) -> list[InferenceJob]:
        """Accept all jobs of a request, or none: `ApiError`."""
        self._check_accepting()
        for params in asked:
            scheduler = self.schedulers[params.role]
            if scheduler.failed:
                raise errors.not_ready(scheduler.failed, code="model_failed")
            scheduler.check(params)
        self._check_queue(*((params.role, params.kind) for params in asked))
        self._check_decoded(asked)
        return [self._accept(params) for params in asked]

    def _check_accepting(self) -> None:
        if self.draining:
            raise errors.not_ready("the server is stopping", code="stopping")
        self._check_ready()

    def _check_queue(self, *asked: tuple[Role, Kind]) -> None:
        """`ApiError` where the queues have no place for these."""
        limit = self.settings.max_queue
        for role, kind in set(asked):
            scheduler, count = self.schedulers[role], asked.count((role, kind))
            if count > limit:  # never, however often it comes again
                raise errors.bad_request(f"a request may ask {limit} questions at most")
            scheduler.queue.prune()
            if scheduler.queue.count(kind) + count > limit:
                raise errors.queue_full(self._retry_after_s(scheduler))

    def _check_decoded(self, asked: tuple[InferenceParams, ...]) -> None:
        """The jobs of one request share their audio."""
        held = {id(job.params.audio): job.params.audio.seconds for job in self._unfinished}
        new = {id(params.audio): params.audio.seconds for params in asked}
        if held and sum((held | new).values()) > MAX_DECODED_S:
            raise errors.queue_full(max(map(self._retry_after_s, self.schedulers.values())))

    def _accept(self, params: InferenceParams) -> InferenceJob:
        scheduler = self.schedulers[params.role]
        loop = asyncio.get_running_loop()
        tokens = scheduler.admission.tokens(params)
        if params.options.max_new_tokens is not None:
            params = replace(params, options=replace(params.options, max_new_tokens=tokens))
        job = InferenceJob(params, tokens, loop.create_future())
        self._unfinished.add(job)
        limit_s = self.settings.request_timeout_s
        timer = loop.call_later(limit_s, lambda: job.fail(errors.timed_out(limit_s)))
        job.future.add_done_callback(lambda _: self._finished(job, timer))
        scheduler.add(job)
        return job

    def _finished(self, job: InferenceJob, timer: asyncio.TimerHandle) -> None:
        self._unfinished.discard(job)
        timer.cancel()
        if job.future.cancelled() or job.future.exception() is not None:
            return
        result: InferenceResult = job.future.result()
        before = self._pace_s.get(job.params.role, result.work_s)
        self._pace_s[job.params.role] = 0.8 * before + 0.2 * result.work_s

    def _retry_after_s(self, scheduler: ModelScheduler) -> int:
        """When a place should be free: half the queue at the model's pace of late."""
        batches = len(scheduler.queue) / scheduler.max_batch / 2
        return max(1, math.ceil(batches * self._pace_s.get(scheduler.role, 1.0)))
