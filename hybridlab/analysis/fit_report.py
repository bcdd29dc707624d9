"""One pair on one card: whether it fits, how much of everything, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from hybridlab import catalog
from hybridlab.analysis.pick import (
    AUTO,
    DEFAULT_MARGIN_BYTES,
    EXPANDED,
    best_by_size,
    candidates,
    checked_request,
    margin_words,
    pick,
    plan_leaves,
    recognizer_name,
    remedy,
)
from hybridlab.catalog import Attention, Card, VoxtralModel, WhisperModel
from hybridlab.errors import ParameterError
from hybridlab.planner.activations import Request
from hybridlab.planner.estimate import Estimate
from hybridlab.planner.limits import longest_audio_s, most_served
from hybridlab.planner.memory_plan import PairPlan, fit_of, native_combinations, plan_pair
from hybridlab.planner.per_strategy import memory_by_strategy
from hybridlab.units import GB, gib


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What fits of one pair on one card: predicted, never measured."""

    plan: PairPlan
    margin_bytes: int
    #: The Whisper for this card and request, and what would make this one fit.
    pick: PairPlan | None
    remedy: str | None
    longest_audio_s: float
    longest_audio_expanded_kv_s: float
    largest_batch: int
    most_beams: int
    host_bytes: int
    fits_cards: tuple[str, ...]
    fits_not_cards: tuple[str, ...]
    sharing: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        apart = ("plan", "pick", "sharing")
        figures = {name: v for name, v in asdict(self).items() if name not in apart}
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
        pick = self.pick.as_dict() if self.pick else None
        told = {"fits_host": fits_host, "sharing": sharing, "pick": pick}
        return {**self.plan.as_dict(), **figures, **told}

    def heading(self) -> str:
        plan = self.plan
        return (
            f"{plan.asr_model} ({plan.asr_backend}, {plan.asr_dtype}) beside {plan.llm_model} in "
            f"{plan.llm_dtype} on {plan.card}, predicted:"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Everything but the bytes of moments and ways of sharing, as label and words."""
        plan = self.plan
        below = plan.fit == "fits" and not plan_leaves(plan, self.margin_bytes)
        fit = "fits, below the margin" if below else plan.fit
        spread, capacity = _range(plan.total), _range(plan.capacity)
        margin = margin_words(self.margin_bytes)
        host = "loads" if plan.fits_host(self.host_bytes) else "cannot load"
        host_gb = f"{self.host_bytes / GB:g}"
        rows = [
            (
                "verdict",
                f"{fit}: {gib(plan.total_bytes):.2f} ({spread}) of {capacity} GiB",
            ),
            *([("remedy", self.remedy)] if self.remedy else []),
            (
                "pick",
                f"{recognizer_name(self.pick) if self.pick else 'none'}, with {margin} "
                f"(--margin-gb {self.margin_bytes / GB:g})",
            ),
            (
                "longest audio",
                f"{_longest(self.longest_audio_s)}; with expanded_kv "
                f"{_longest(self.longest_audio_expanded_kv_s)} (CUDA's default allocator; "
                "with expandable segments more may fit)",
            ),
            ("largest batch", f"{self.largest_batch}"),
            ("most beams", f"{self.most_beams}"),
            ("host", f"{host} with {gib(self.host_bytes):.2f} GiB (--host-gb {host_gb})"),
            ("fits on", ", ".join(self.fits_cards) or "no card of the catalog"),
        ]
        if self.fits_not_cards:
            rows.append(("not on", ", ".join(self.fits_not_cards)))
        return rows


def _range(size: Estimate) -> str:
    return f"{gib(size.low):.2f} to {gib(size.high):.2f}"


def _longest(audio_s: float) -> str:
    return f"{audio_s:g} s" if audio_s else "none leaves the margin"


def evaluate_fit(
    card: Card,
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str = AUTO,
    dtype: str = AUTO,
    audio_s: float = catalog.WINDOW_S,
    attention: Attention = "auto",
    margin_bytes: int = DEFAULT_MARGIN_BYTES,
    host_bytes: int,
) -> FitReport:
    """The pair on this card, the most of everything that leaves the margin, and the cards of the
    catalog on which the pair does. A backend or dtype that is left open is the one that `plan` has
    for this size; `ParameterError` where no backend keeps it so on this card."""
    request = checked_request(audio_s=audio_s)
    if AUTO in (backend, dtype):
        asked: dict[str, Any] = {"size": whisper.name, "backend": backend, "dtype": dtype}
        asked |= {"voxtral": voxtral, "request": request, "attention": attention}
        best = _best(card, margin_bytes, **asked)
        backend, dtype = best.asr_backend, best.asr_dtype
    kept: dict[str, Any] = {"backend": backend, "dtype": dtype}
    pair = partial(plan_pair, card, whisper, voxtral, **kept)
    plan = pair(request=request, attention=attention)
    elsewhere = {
        other.name: plan_pair(other, whisper, voxtral, **kept, request=request)
        for other in catalog.CARDS.values()
        if (backend, dtype) in native_combinations(other)
    }
    cards = {name: plan_leaves(found, margin_bytes) for name, found in elsewhere.items()}

    def fits(request: Request, attention: Attention = attention) -> bool:
        return plan_leaves(pair(request=request, attention=attention), margin_bytes)

    def longest(attention: Attention) -> float:
        return longest_audio_s(lambda s: fits(replace(request, audio_s=s), attention))

    return FitReport(
        plan=plan,
        margin_bytes=margin_bytes,
        pick=pick(card, request, margin_bytes, voxtral=voxtral, attention=attention),
        remedy=remedy(plan, request, margin_bytes),
        longest_audio_s=longest(attention),
        longest_audio_expanded_kv_s=longest(EXPANDED),
        largest_batch=most_served(fits, request, "batch"),
        most_beams=most_served(fits, request, "beams"),
        host_bytes=host_bytes,
        fits_cards=tuple(name for name, fit in cards.items() if fit),
        fits_not_cards=tuple(name for name, fit in cards.items() if not fit),
        sharing=memory_by_strategy(
            card, whisper, voxtral, **kept, request=request, attention=attention
        ),
    )


def _best(card: Card, margin_bytes: int, **asked: Any) -> PairPlan:
    """What `plan` has for a size, among what was left open; `ParameterError` where nothing is."""
    found = candidates(card, **asked)
    if not found:
        raise ParameterError(
            f"no backend that was asked for keeps Whisper in {asked['dtype']!r} on {card.title}, "
            f"which computes in {', '.join(card.native_dtypes)}; leave --backend or --dtype out"
        )
    return best_by_size(found, margin_bytes)[0]
