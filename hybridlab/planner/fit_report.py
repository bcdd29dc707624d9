"""Everything the planner can say about one pair, as figures and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from hybridlab import catalog
from hybridlab.catalog import Attention, Card, VoxtralModel, WhisperModel
from hybridlab.planner.activations import Request
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.limits import longest_audio_s, most_served
from hybridlab.planner.memory_plan import PairPlan, fit_of, native_combinations, plan_pair
from hybridlab.planner.per_strategy import memory_by_strategy
from hybridlab.units import GB, format_bytes, format_seconds


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What fits of one pair on one card: predicted, never measured."""

    plan: PairPlan
    longest_audio_s: float
    longest_audio_expanded_kv_s: float
    largest_batch: int
    most_beams: int
    host_bytes: int
    fits_cards: tuple[str, ...]
    fits_not_cards: tuple[str, ...]
    sharing: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        figures = {name: v for name, v in asdict(self).items() if name not in ("plan", "sharing")}
        sharing = {
            way: {
                "total_bytes": needed.expected,
                "total_low_bytes": needed.low,
                "total_high_bytes": needed.high,
                "fit": fit_of(needed, self.plan.capacity),
            }
            for way, needed in self.sharing.items()
        }
        fits_host = self.plan.fits_host(self.host_bytes)
        return {**self.plan.as_dict(), **figures, "fits_host": fits_host, "sharing": sharing}

    def heading(self) -> str:
        plan = self.plan
        return (
            f"{plan.asr_model} ({plan.asr_backend}, {plan.asr_dtype}) beside {plan.llm_model} in "
            f"{plan.llm_dtype} on {plan.card}, predicted:"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Everything but the bytes of moments and ways of sharing, as label and words."""
        plan = self.plan
        spread = f"{format_bytes(plan.total.low)} to {format_bytes(plan.total.high)}"
        host = "loads" if plan.fits_host(self.host_bytes) else "cannot load"
        rows = [
            (
                "verdict",
                f"{plan.fit}: {format_bytes(plan.total_bytes)} ({spread}) of "
                f"{format_bytes(plan.capacity.low)} to {format_bytes(plan.capacity.high)}",
            ),
            (
                "longest audio",
                f"{format_seconds(self.longest_audio_s)}; with expanded_kv "
                f"{format_seconds(self.longest_audio_expanded_kv_s)}",
            ),
            ("largest batch", f"{self.largest_batch}"),
            ("most beams", f"{self.most_beams}"),
            ("host", f"a host of {self.host_bytes / GB:.1f} GB {host} it"),
            ("fits on", ", ".join(self.fits_cards) or "no card of the catalog"),
        ]
        if self.fits_not_cards:
            rows.append(("not on", ", ".join(self.fits_not_cards)))
        return rows


def evaluate_fit(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    audio_s: float = catalog.WINDOW_S,
    attention: Attention = "auto",
    host_bytes: int,
) -> FitReport:
    """The pair on this card, its limits, and the cards of the catalog that it fits on."""
    request = Request(audio_s=audio_s)
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    pair = partial(plan_pair, card, whisper, voxtral, **kept, attention=attention)
    plan = pair(request=request)
    elsewhere = [
        plan_pair(other, whisper, voxtral, **kept, request=request)
        for other in catalog.CARDS.values()
        if (backend, dtype) in native_combinations(other)
    ]

    def longest(attention: Attention) -> float:
        return longest_audio_s(
            lambda seconds: (
                pair(request=replace(request, audio_s=seconds), attention=attention).fits
            )
        )

    return FitReport(
        plan=plan,
        longest_audio_s=longest(attention),
        longest_audio_expanded_kv_s=longest("expanded_kv"),
        largest_batch=most_served(lambda r: pair(request=r), request, "batch"),
        most_beams=most_served(lambda r: pair(request=r), request, "beams"),
        host_bytes=host_bytes,
        fits_cards=tuple(p.card for p in elsewhere if p.fits),
        fits_not_cards=tuple(p.card for p in elsewhere if not p.fits),
        sharing=memory_by_strategy(
            card, whisper, voxtral, **kept, request=request, attention=attention
        ),
    )
