"""What the explorer's controls say, and what the planner predicts for it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab import catalog, planner
from hybridlab.devices import CpuDevice
from hybridlab.errors import ParameterError
from hybridlab.planner.limits import largest_fitting
from hybridlab.planner.memory_plan import MemoryByOwner
from hybridlab.widgets.measured_points import Combination, Point


@dataclass(frozen=True, kw_only=True)
class Choice(Combination):
    """What the controls say."""

    beams: int

    def check(self) -> None:
        """`ParameterError` for what the planner would predict but nothing would run."""
        card = card_named(self.card)
        for name, dtype in (("Voxtral", self.llm_dtype), ("Whisper", self.dtype)):
            if dtype not in ("int8", "int4", *card.native_dtypes):
                raise ParameterError(
                    f"{card.title} does not compute in {dtype}; for {name} choose one of: "
                    f"{', '.join(card.native_dtypes)}"
                )
        if card is catalog.HOST and self.llm_dtype in ("int8", "int4"):
            raise ParameterError(
                f"Voxtral in {self.llm_dtype} needs a CUDA device (bitsandbytes); choose "
                "float32 or bfloat16"
            )

    def moments(self, *, audio_s: float | None = None) -> dict[str, MemoryByOwner]:
        """The planner's owners at each moment of the chosen way."""
        request = planner.Request(
            audio_s=audio_s or self.audio_s, beams=self.beams, batch=self.batch
        )
        return planner.ledger_by_strategy(
            card_named(self.card),
            catalog.whisper(self.whisper),
            catalog.voxtral(self.voxtral),
            backend=self.backend,
            dtype=self.dtype,
            llm_dtype=self.llm_dtype,
            request=request,
        )[self.way]

    def worst(self, *, audio_s: float | None = None) -> planner.Estimate:
        moments = self.moments(audio_s=audio_s).values()
        return planner.largest([planner.total(list(owners.values())) for owners in moments])

    def longest_audio_s(self) -> float:
        """Longest audio (s) in whole windows that is expected to fit; 0 where none does."""
        capacity = capacity_of(self.card)
        windows = largest_fitting(
            lambda n: self.worst(audio_s=n * catalog.WINDOW_S).expected <= capacity.expected,
            most=int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S),
        )
        return windows * catalog.WINDOW_S

    def matches(self, point: Point) -> bool:
        """Whether this was measured: on this card, these models and dtypes, this way, as many
        windows and rows, one beam."""
        whisper = () if self.way == "solo" else ("whisper", "backend", "dtype")
        names = ("card", "voxtral", "llm_dtype", "way", "batch", "windows", *whisper)
        same = all(getattr(self, name) == getattr(point, name) for name in names)
        return same and self.beams == 1


def card_named(name: str) -> catalog.Card:
    """A card of the catalog, or this machine's CPU."""
    return catalog.HOST if name == catalog.HOST.name else catalog.card(name)


def capacity_of(name: str) -> planner.Estimate:
    """What the card is sold with; for the CPU what this machine has."""
    if name == catalog.HOST.name:
        return planner.Estimate.exact(CpuDevice().capacity_bytes())
    card = catalog.card(name)
    return planner.Estimate(card.usable_bytes, card.usable_bytes, card.usable_bytes_max)
