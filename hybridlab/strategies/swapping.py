"""Only one resident at a time, or only Voxtral: weights come in when they are needed."""

from __future__ import annotations

from hybridlab.models.base import AudioLanguageModel, GenerationResult, Model, SpeechRecognizer
from hybridlab.strategies.base import Strategy, stage
from hybridlab.strategies.offload.base import ReloadCold, ReloadWarm, Swap, WeightOffloader
from hybridlab.strategies.offload.per_tensor import Pinned, ToCpu
from hybridlab.strategies.offload.single_buffer import ArenaOverlapped, InArena
from hybridlab.strategies.requests import Request

MOVERS: dict[str, type[WeightOffloader]] = {
    "reload-cached": ReloadWarm,
    "reload-from-disk": ReloadCold,
    "module-to-cpu": ToCpu,
    "pinned": Pinned,
    "single-buffer": InArena,
    "single-buffer-overlapped": ArenaOverlapped,
}


class Swapping(Strategy):
    """How weights leave and come back is the variant: see the classes of `OFFLOADERS`.
    `swap='asr'` keeps Voxtral resident, `'both'` swaps both.

    Bound by disk, host memory and the link; only `module-to-cpu` copies anything out, since
    inference does not change weights.
    """

    name = "swapping"
    variants = tuple(MOVERS)

    def __init__(
        self,
        asr: SpeechRecognizer | None,
        llm: AudioLanguageModel,
        *,
        variant: str,
        swap: Swap = "asr",
    ) -> None:
        super().__init__(asr, llm, variant=variant)
        self.swap = swap
        self.mover = MOVERS[variant](self.device, swap=swap)

    @property
    def resident(self) -> list[Model]:
        return [self.llm] if self.swap == "asr" else []

    def open(self) -> None:
        try:
            for tenant in self.in_load_order(self.tenants):
                if tenant in self.resident:
                    with stage(tenant, "load"):
                        tenant.load()
                else:
                    self.mover.prepare(tenant)
            self.mover.finalize()
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

    def _serve(self, request: Request) -> tuple[GenerationResult, GenerationResult]:
        self.mover.onload(self.asr)
        if self.swap == "asr":
            transcript = self._transcribe(request)
        else:
            with self.mover.overlapping(self.llm):
                transcript = self._transcribe(request)
        self.mover.offload(self.asr)
        if self.swap == "both":
            self.mover.onload(self.llm)
        with self.mover.overlapping(self.asr):
            answer = self._answer(request)
        if self.swap == "both":
            self.mover.offload(self.llm)
        return transcript, answer
