"""Only one resident at a time, or only Voxtral: weights come in when they are needed."""

from __future__ import annotations

from hybridlab.models.base import Analyst, Tenant, Text, Transcriber
from hybridlab.strategies.arenas import ArenaOverlapped, InArena
from hybridlab.strategies.base import Strategy, stage
from hybridlab.strategies.copies import Pinned, ToCpu
from hybridlab.strategies.movers import Mover, ReloadCold, ReloadWarm, Swap
from hybridlab.strategies.requests import Request

MOVERS: dict[str, type[Mover]] = {
    "reload-warm": ReloadWarm,
    "reload-cold": ReloadCold,
    "to-cpu": ToCpu,
    "pinned": Pinned,
    "arena": InArena,
    "arena-overlapped": ArenaOverlapped,
}


class Swapping(Strategy):
    """How weights leave and come back is the variant: see the classes of `MOVERS`.
    `swap='whisper'` keeps Voxtral resident, `'both'` swaps both.

    Bound by disk, host memory and the link; only `to-cpu` copies anything out, since inference does
    not change weights.
    """

    name = "swapping"
    variants = tuple(MOVERS)

    def __init__(
        self,
        transcriber: Transcriber | None,
        analyst: Analyst,
        *,
        variant: str,
        swap: Swap = "whisper",
    ) -> None:
        super().__init__(transcriber, analyst, variant=variant)
        self.swap = swap
        self.mover = MOVERS[variant](self.device, swap=swap)

    @property
    def resident(self) -> list[Tenant]:
        return [self.analyst] if self.swap == "whisper" else []

    def open(self) -> None:
        try:
            for tenant in self.in_load_order(self.tenants):
                if tenant in self.resident:
                    with stage(tenant, "load"):
                        tenant.load()
                else:
                    self.mover.prepare(tenant)
            self.mover.ready()
            self.device.release()  # the block whose copy was timed
        except BaseException:  # also an interrupt: nothing stays pinned
            self.close()
            raise
        self.link_bytes_per_s = self.mover.link_bytes_per_s

    def close(self) -> None:
        self.mover.close()
        super().close()

    def owners(self) -> dict[str, int]:
        return self.mover.owners()

    def host_copy_bytes(self) -> int:
        return self.mover.host_copy_bytes()

    def _serve(self, request: Request) -> tuple[Text, Text]:
        self.mover.bring_in(self.transcriber)
        if self.swap == "whisper":
            transcript = self._transcribe(request)
        else:
            with self.mover.during(self.analyst):
                transcript = self._transcribe(request)
        self.mover.drop(self.transcriber)
        if self.swap == "both":
            self.mover.bring_in(self.analyst)
        with self.mover.during(self.transcriber):
            answer = self._answer(request)
        if self.swap == "both":
            self.mover.drop(self.analyst)
        return transcript, answer
