"""Only one model resident at a time, or only the LLM: weights come in when they are needed."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.catalog.registry import load
from hybridlab.config.params import Swap
from hybridlab.devices import Device
from hybridlab.models.base import AudioLanguageModel, Model, SpeechRecognizer
from hybridlab.strategies.base import Strategy, Texts, stage
from hybridlab.strategies.offload.base import WeightOffloader
from hybridlab.strategies.requests import Request


def make_offloader(variant: str, device: Device, *, swap: Swap) -> WeightOffloader:
    """What moves weights under this variant of `swapping`."""
    kind: type[WeightOffloader] = load(catalog.variant("swapping", variant).offloader)
    return kind(device, variant, swap=swap)


class Swapping(Strategy):
    """How weights leave and come back is the variant: see the classes in `offload/`.
    `swap='asr'` keeps the LLM resident, `'both'` swaps both.

    Bound by disk, host memory and the link; only `module-to-cpu` copies anything out, since
    inference does not change weights.
    """

    name = "swapping"

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
        self.offloader = make_offloader(variant, self.device, swap=swap)

    @property
    def resident(self) -> list[Model]:
        return [self.llm] if self.swap == "asr" else []

    def open(self) -> None:
        try:
            for model in self.in_load_order(self.models):
                if model in self.resident:
                    with stage(model, "load"):
                        model.load()
                else:
                    self.offloader.prepare(model)
            self.offloader.finalize()
            self.device.release()  # the block whose copy was timed
        except BaseException:  # also an interrupt: nothing stays pinned
            self.close()
            raise
        self.link_bytes_per_s = self.offloader.link_bytes_per_s

    def close(self) -> None:
        self.offloader.close()
        super().close()

    def buffer_bytes(self) -> dict[str, int]:
        return self.offloader.buffer_bytes()

    def host_copy_bytes(self) -> int:
        return self.offloader.host_copy_bytes()

    def _serve(self, request: Request) -> Texts:
        offloader, both = self.offloader, self.swap == "both"
        offloader.onload(self.asr)
        if both:
            with offloader.overlapping(self.llm):
                transcript = self._transcribe(request)
        else:
            transcript = self._transcribe(request)
        offloader.offload(self.asr)
        if both:
            offloader.onload(self.llm)
        with offloader.overlapping(self.asr):
            answer = self._answer(request)
        if both:
            offloader.offload(self.llm)
        return transcript, answer
