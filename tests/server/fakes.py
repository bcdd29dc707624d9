"""Tenants without models, to test who works when and what becomes of faults."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from hybridlab import catalog
from hybridlab.errors import WorkerLostError
from hybridlab.models.base import Listener, Span, TenantSpec, Text, Usage
from hybridlab.server.admission import Admission
from hybridlab.server.engine import Engine, Wish
from hybridlab.server.jobs import Job, Outcome, Sound
from hybridlab.server.lane import Lane, Turns
from hybridlab.server.room import Room
from hybridlab.server.tenant import WITHOUT_TEXT
from hybridlab.server.upkeep import Policy
from hybridlab.units import GB

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@dataclass
class FakeMemory:
    """A card on which tenants keep what they have freed, and other programs hold something."""

    n_bytes: int
    others: int = 0
    name: str = "the card"
    tenants: list[FakeTenant] = field(default_factory=list)

    def free_bytes(self) -> int:
        return max(0, self.room_bytes() - sum(tenant.cached for tenant in self.tenants))

    def room_bytes(self) -> int:
        return max(0, self.n_bytes - self.others)

    def others_bytes(self, *, idle: bool) -> int:
        return self.others

    def settle(self) -> None:
        return None


@dataclass
class FakeTenant:
    """Says its model and the job's question; `serve_s` is how long a call takes. `plan` holds, call
    by call, an error to raise or None. On a `memory` it takes `needs` for a call and keeps it."""

    name: str
    models: list[str]
    serve_s: float = 0.0
    plan: list[Exception | None] = field(default_factory=list)
    #: Models that do not load.
    too_large: set[str] = field(default_factory=set)
    say: Callable[[Job], str] = lambda job: f"said {job.question}"
    #: Who listens is told word by word; this is called before each, with how many there were.
    before_word: Callable[[int], object] = lambda told: None
    rung: int = 0
    swaps: bool = False
    fragmented: float | None = None
    cached: int = 0
    memory: FakeMemory | None = None
    needs: Callable[[Job], int] = lambda job: 0
    calls: list[list[str]] = field(default_factory=list)
    #: Of each call, whether somebody listened.
    listened: list[bool] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)

    def open(self) -> None:
        self._load(0)

    def _load(self, rung: int) -> None:
        if self.models[rung] in self.too_large:
            raise MemoryError(OUT_OF_MEMORY)
        self.log.append(f"load {self.models[rung]}")

    async def serve(self, jobs: Sequence[Job], hear: Listener | None = None) -> Outcome:
        """On a thread, as tests may block it; who listens is told on the loop."""
        loop = asyncio.get_running_loop()

        async def told(pieces: Sequence[str]) -> bool:
            assert hear is not None
            return hear(pieces)

        def tell(pieces: Sequence[str]) -> bool:
            return asyncio.run_coroutine_threadsafe(told(pieces), loop).result()

        killed = threading.Event()
        try:
            told_of = None if hear is None else tell
            return await asyncio.to_thread(self._serve, jobs, told_of, killed)
        except asyncio.CancelledError:
            self.log.append("kill")
            killed.set()
            raise

    def _serve(
        self, jobs: Sequence[Job], hear: Listener | None, killed: threading.Event
    ) -> Outcome:
        self.calls.append([job.question for job in jobs])
        self.listened.append(hear is not None)
        self.journal.append(self.name)
        if killed.wait(self.serve_s):
            raise WorkerLostError("nobody waits for this call any more")
        error = self.plan.pop(0) if self.plan else None
        if error is not None:
            raise error
        self._take(sum(map(self.needs, jobs)))
        said = [self.say(job) for job in jobs]
        if hear is not None:
            self._tell(said, hear)
        texts = [(Text(text, (1, 2), Usage(10, 3, ended=True)),) for text in said]
        return Outcome(texts, [Span(self.name, "decode", 0.0, 0.5)])

    def _take(self, n_bytes: int) -> None:
        if self.memory is not None:
            if n_bytes > self.memory.free_bytes() + self.cached:
                raise MemoryError(OUT_OF_MEMORY)
            self.cached = max(self.cached, n_bytes)

    def _tell(self, said: list[str], hear: Listener) -> None:
        rows = [re.findall(r"\s*\S+", text) for text in said]
        for told, pieces in enumerate(zip_longest(*rows, fillvalue="")):
            self.before_word(told)
            if not hear(pieces):
                self.log.append(f"stopped after {told + 1}")
                return

    def leave_device(self) -> None:
        self.log.append("leave")

    def use(self, rung: int) -> None:
        self.cached = 0
        self._load(rung)
        self.rung = rung

    def clean(self) -> None:
        self.cached = 0
        self.log.append("clean")

    @property
    def cached_bytes(self) -> int:
        return self.cached

    @property
    def here_bytes(self) -> int:
        return 0

    def fragmentation(self) -> float | None:
        return self.fragmented

    def close(self) -> None:
        self.log.append("close")


def sound(seconds: float = 1.0) -> Sound:
    return Sound(np.zeros(round(seconds * catalog.SAMPLE_RATE_HZ), np.float32))


def admission(model: str, room: Room, *, analyst: bool = False) -> Admission:
    spec = TenantSpec(
        model=model,
        backend="transformers" if analyst else "openai-whisper",
        weights="pocket",
        dtype="float32",
    )
    return Admission(spec=spec, analyst=analyst, card=catalog.HOST, room=room, max_audio_s=2400.0)


class Stage:
    """An engine over fake tenants; use as `async with Stage(whisper, voxtral) as stage`."""

    def __init__(
        self,
        *tenants: FakeTenant,
        at_once: bool = False,
        room_bytes: int = 4 * GB,
        queue: int = 64,
        request_timeout_s: float = 30.0,
        memory: FakeMemory | None = None,
        **policy: Any,
    ) -> None:
        self.room = Room(room_bytes, memory=memory)
        if memory is not None:
            memory.tenants += tenants
            for tenant in tenants:
                tenant.memory = memory
        turns = Turns(at_once=at_once)
        rules = Policy(request_timeout_s=request_timeout_s, **policy)
        self.phases: list[tuple[str, str]] = []
        lanes = {
            tenant.name: Lane(
                tenant=tenant,
                admissions=[
                    admission(
                        model.partition("-")[2].removesuffix(WITHOUT_TEXT),
                        self.room,
                        analyst=tenant.name == "voxtral",
                    )
                    for model in tenant.models
                ],
                turns=turns,
                room=self.room,
                policy=rules,
                on_spans=lambda tenant, phase, seconds: self.phases.append((tenant, phase)),
            )
            for tenant in tenants
        }
        self.engine = Engine(lanes, queue=queue, request_timeout_s=request_timeout_s)

    def ask(
        self, name: str, *, tenant: str = "voxtral", seconds: float = 1.0, stream: bool = False
    ) -> Job:
        kind = "answer" if tenant == "voxtral" else "transcription"
        wish = Wish(
            tenant=tenant,
            kind=kind,  # type: ignore[arg-type]
            sound=sound(seconds),
            question=name,
            max_new_tokens=40,
            stream=stream,
        )
        (job,) = self.engine.submit(wish)
        return job

    async def __aenter__(self) -> Stage:
        await self.engine.load()
        self.room.settle()
        self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()


def whisper(*models: str, **options: Any) -> FakeTenant:
    return FakeTenant("whisper", [f"whisper-{m}" for m in models or ("pocket-m",)], **options)


def voxtral(**options: Any) -> FakeTenant:
    return FakeTenant("voxtral", ["voxtral-pocket"], **options)


async def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until it holds; fails the test if it does not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)
