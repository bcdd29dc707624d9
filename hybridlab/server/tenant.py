"""How the orchestrator asks one tenant: a small interface, and a tenant in a worker behind it.

One call at a time. All of it but `serve` blocks and is called from a thread of the tenant's own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from hybridlab.models.base import Listener, Tenant, TenantSpec, Text
from hybridlab.models.remote import RemoteAnalyst, RemoteTranscriber
from hybridlab.processes.segments import expand_segments
from hybridlab.server.jobs import Job, Outcome
from hybridlab.server.sharing import Sharing

log = logging.getLogger("hybridlab.server")

#: Ends the name of a model whose weights are random: its words mean nothing, and may be none.
WITHOUT_TEXT = "-random"


class ServedTenant(Protocol):
    """One tenant as the orchestrator sees it. `serve` and the others raise what the lab raises:
    `WorkerLostError`, an allocation failure (`oom.out_of_memory`), or another fault."""

    name: str
    #: Models from large to small that can take the tenant's place; `rung` is the one in use.
    models: list[str]
    rung: int
    #: Whether its weights are on the device for its turns alone.
    swaps: bool

    def open(self) -> None:
        """Bring it up, ready to serve."""

    async def serve(self, jobs: Sequence[Job], hear: Listener | None = None) -> Outcome:
        """One call for jobs that fit together. `hear` is told the new words of each job while they
        are decoded, where the tenant can tell; after False from it the texts may be cut. Cancelling
        it ends the tenant's process."""

    def leave_device(self) -> None:
        """Its turn is over: where weights are swapped, they go."""

    def use(self, rung: int) -> None:
        """A fresh worker with the model of this rung, loaded: the same one again, a smaller or a
        larger."""

    def clean(self) -> None:
        """Give freed memory back."""

    @property
    def cached_bytes(self) -> int:
        """What its allocator keeps for later, and the others lack."""

    @property
    def here_bytes(self) -> int:
        """Weights that are swapped, as long as they are on the device."""

    def fragmentation(self) -> float | None:
        """1 - active / reserved of its allocator; None where that has no reading."""

    def close(self) -> None:
        """Let its process go."""


class WorkerTenant:
    """A tenant of the lab in a worker. `specs`: its models from large to small."""

    def __init__(
        self,
        remote: RemoteTranscriber | RemoteAnalyst,
        specs: Sequence[TenantSpec],
        sharing: Sharing,
    ) -> None:
        self.remote = remote
        self.specs = list(specs)
        self.sharing = sharing
        self.name = remote.name
        self.models = [served_name(spec, remote.name) for spec in specs]
        self.rung = 0
        self._here = False  # whether weights that are swapped are on the device
        self._stuck_bytes = 0  # what its allocator kept when it was last told to keep nothing
        self._swap = sharing.swap if remote.role == "transcriber" else ""
        self.swaps = bool(self._swap)

    def open(self) -> None:
        if self.sharing.expand_segments:
            self.remote.ask(_expand_segments)
        self._here = False
        self.remote.ask(_open, self._swap)
        self._gave_back()
        log.info("%s: %s in process %s", self.name, self.remote.spec.model, self.remote.worker.pid)

    async def serve(self, jobs: Sequence[Job], hear: Listener | None = None) -> Outcome:
        if self._swap:
            self._here = True
            await self.remote.ask_async(_bring_in)
        if jobs[0].kind == "answer":
            texts = await self._answers(jobs, hear)
        else:
            texts = await self._transcripts(jobs, hear)
        if self.sharing.clean:
            await self.remote.ask_async(_release)
            self._gave_back()
        return Outcome(texts, self.remote.drain_spans())

    async def _answers(self, jobs: Sequence[Job], hear: Listener | None) -> list[tuple[Text, ...]]:
        texts: list[Text] = await self.remote.ask_async(
            "answer",
            [job.sound.samples for job in jobs],
            [job.question for job in jobs],
            max_new_tokens=jobs[0].max_new_tokens,
            hear=hear,
        )
        return [(text,) for text in texts]

    async def _transcripts(
        self, jobs: Sequence[Job], hear: Listener | None
    ) -> list[tuple[Text, ...]]:
        """Whisper is given windows, as it would cut the audio itself, so that each text is known
        to belong to its own; Voxtral hears the whole."""
        whole = self.remote.role == "analyst"
        pieces = [[job.sound.samples] if whole else job.sound.pieces() for job in jobs]
        texts: list[Text] = await self.remote.ask_async(
            "transcribe",
            [piece for own in pieces for piece in own],
            language=jobs[0].language,
            max_new_tokens=jobs[0].max_new_tokens,
            hear=hear,
        )
        rows = iter(texts)
        return [tuple(next(rows) for _ in own) for own in pieces]

    def leave_device(self) -> None:
        if self._here:
            self._here = False
            self.remote.ask(_drop)
            self._gave_back()

    def use(self, rung: int) -> None:
        self.remote.begin_again(self.specs[rung])
        self.open()
        self.rung = rung

    def clean(self) -> None:
        self.remote.ask(_release)
        self._gave_back()

    def _gave_back(self) -> None:
        self._stuck_bytes = self._kept_bytes()

    def _kept_bytes(self) -> int:
        member = self.remote.member
        reserved = member.reserved_bytes()
        return max(0, reserved - member.used_bytes()) if reserved else 0

    @property
    def cached_bytes(self) -> int:
        return max(0, self._kept_bytes() - self._stuck_bytes)

    @property
    def here_bytes(self) -> int:
        return (self.remote.weights_bytes() or 0) if self._here else 0

    def fragmentation(self) -> float | None:
        return self.remote.ask(_fragmentation)

    def close(self) -> None:
        self.remote.leave()
        self.remote.worker.close()

    @property
    def spec(self) -> TenantSpec:
        return self.specs[self.rung]


def served_name(spec: TenantSpec, name: str) -> str:
    """The model's id for clients; weights without text say so."""
    return f"{name}-{spec.model}" + ("" if spec.has_text else WITHOUT_TEXT)


# -------------------------------------------------------------------------- inside the worker


def _open(tenant: Tenant, swap: str) -> None:
    """Load; a tenant that swaps is brought in once and let go, so that what would fail at the first
    request fails now."""
    from hybridlab.models.source import check_source

    check_source(tenant.spec)
    if swap:
        _load_to_swap(tenant, swap)
    else:
        tenant.load()
    _release(tenant)  # what loading took beside the weights is the next one's


def _load_to_swap(tenant: Tenant, swap: str) -> None:
    from hybridlab.strategies.swapping import MOVERS

    mover = MOVERS[swap](tenant.device, swap="whisper")
    mover.prepare(tenant)
    mover.ready()
    mover.bring_in(tenant)
    mover.drop(tenant)
    tenant.__dict__["mover"] = mover  # one worker, one tenant: it lives as long


def _bring_in(tenant: Tenant) -> None:
    tenant.__dict__["mover"].bring_in(tenant)


def _drop(tenant: Tenant) -> None:
    tenant.__dict__["mover"].drop(tenant)
    _release(tenant)


def _release(tenant: Tenant) -> None:
    """To the driver: the room is another process'."""
    tenant.device.release()
    tenant.device.release_caches()


def _expand_segments(tenant: Tenant) -> None:
    expand_segments(tenant.device)


def _fragmentation(tenant: Tenant) -> float | None:
    return tenant.device.wear().fragmentation
