"""What the routes stand on: settings, pair, engine, decoder and metrics, from start to end."""

from __future__ import annotations

import asyncio
import logging
import time

from hybridlab import catalog
from hybridlab.server import wire
from hybridlab.server.engine import Engine, Wish
from hybridlab.server.jobs import Job, Kind, Sound
from hybridlab.server.metrics import Metrics
from hybridlab.server.pair import Pair
from hybridlab.server.refusals import RefusalError, bad_request, not_ready
from hybridlab.server.settings import Settings
from hybridlab.server.uploads import Decoder, Limits

log = logging.getLogger("hybridlab.server")
ANSWER_TOKENS = 200


class Service:
    """Everything behind the routes. `start` loads, `stop` drains and ends."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.created = int(time.time())
        self.engine: Engine | None = None
        self.decoder: Decoder | None = None
        self.pair: Pair | None = None

    async def start(self) -> None:
        """Workers, weights, limits; what fails to load is raised."""
        settings = self.settings
        self.pair = pair = await asyncio.to_thread(Pair, settings)
        lanes = pair.lanes()
        for lane in lanes.values():
            lane.on_spans = self.metrics.phase_done
        self.decoder = Decoder(
            Limits(settings.max_audio_s, settings.decode_timeout_s),
            workers=settings.decoders,
            queue=2 * settings.queue,
        )
        await self.decoder.start()
        engine = Engine(lanes, queue=settings.queue, request_timeout_s=settings.request_timeout_s)
        self.metrics.watch(engine, pair, self.decoder)
        self.engine = engine
        await engine.load()
        await asyncio.to_thread(pair.measure_room)
        engine.start()

    async def drain(self) -> None:
        if self.engine is not None:
            await self.engine.drain()

    async def stop(self) -> None:
        if self.engine is not None:
            await self.engine.close()
        if self.decoder is not None:
            self.decoder.close()
        if self.pair is not None:
            await asyncio.to_thread(self.pair.close)

    # --------------------------------------------------------------------------------- state

    @property
    def broken(self) -> str:
        return self.engine.broken if self.engine is not None else ""

    @property
    def not_ready(self) -> str:
        """Why requests are not accepted now; '' where they are."""
        if self.engine is None or not self.engine.ready:
            return "the models are still loading"
        return "the server is stopping" if self.engine.draining else self.engine.broken

    def model_ids(self) -> list[str]:
        """The models as they are served now."""
        return [lane.model for lane in self.the_engine().lanes.values()]

    def the_engine(self) -> Engine:
        if self.engine is None:
            raise not_ready("the models are still loading")
        return self.engine

    # ------------------------------------------------------------------------------ requests

    def tenant_of(self, model: str) -> str:
        """Whom a client means: 'whisper-1', a name of /v1/models, a size, or a name on the hub."""
        lanes = self.the_engine().lanes
        for name, lane in lanes.items():
            size = lane.admission.spec.model
            known = {name, size, *lane.tenant.models, *(f"{name}-{m}" for m in (size,))}
            known.add(self._hub_id(name, size))
            if name == "whisper":
                known.add("whisper-1")
            if model in known:
                return name
        ids = ", ".join(self.model_ids())
        raise RefusalError(
            404, "model_not_found", f"the model {model[:60]!r} is not served; choose one of: {ids}"
        )

    @staticmethod
    def _hub_id(name: str, size: str) -> str:
        return catalog.whisper(size).hub_id if name == "whisper" else catalog.voxtral(size).hub_id

    def for_hybrid(self) -> str:
        """Who transcribes in a hybrid request."""
        lanes = self.the_engine().lanes
        if "voxtral" not in lanes:
            raise bad_request("this server has no Voxtral and answers no questions")
        return "whisper" if "whisper" in lanes else "voxtral"

    def language(self, asked: str | None) -> str:
        return wire.check_language(self.settings.language if asked is None else asked)

    def answer_tokens(self, asked: int | None) -> int:
        return min(asked or ANSWER_TOKENS, self.settings.max_new_tokens)

    def check(self, tenant: str, kind: Kind) -> None:
        """Refuse before anything is decoded where the request would be refused after it."""
        engine = self.the_engine()
        engine.check()
        engine.check_queue((tenant, kind))

    async def decode(self, data: bytes) -> Sound:
        if self.decoder is None:
            raise not_ready("the models are still loading")
        began = time.perf_counter()
        sound = await self.decoder.decode(data)
        self.metrics.phase_done("server", "decode-upload", time.perf_counter() - began)
        return sound

    def submit(self, *wishes: Wish) -> list[Job]:
        return self.the_engine().submit(*wishes)
