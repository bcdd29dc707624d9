"""The planner asked backwards: what is the most that fits, and where does a pair fit?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from hybridlab import catalog
from hybridlab.catalog import Attention, Card, VoxtralModel, WhisperModel
from hybridlab.planner.activations import Request, voxtral_request_bytes
from hybridlab.planner.memory_plan import (
    PairPlan,
    default_voxtral_dtype,
    native_combinations,
    plan_pair,
)

#: Where doubling stops: more rows or beams than this are not served on one card.
MOST = 4096


def largest_fitting(fits: Callable[[int], bool], *, most: int = MOST) -> int:
    """The largest n in 1..most for which `fits(n)`, given that smaller ones fit too; 0 if none.

    Doubles, then bisects: some 2 log2(n) questions.
    """
    if not fits(1):
        return 0
    good, bad = 1, 2
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def longest_audio_s(
    card: Card,
    voxtral: VoxtralModel,
    *,
    spare_bytes: int,
    attention: Attention = "auto",
) -> float:
    """Longest audio in seconds (whole windows) whose Voxtral request fits into `spare_bytes`."""
    dtype = default_voxtral_dtype(card)

    def fits(windows: int) -> bool:
        request = Request(audio_s=windows * catalog.WINDOW_S)
        needed = voxtral_request_bytes(
            voxtral, request, dtype=dtype, card=card, attention=attention
        )
        return needed <= spare_bytes

    most = int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S)
    return largest_fitting(fits, most=most) * catalog.WINDOW_S


def most_served(
    plan: Callable[[Request], PairPlan], request: Request, what: Literal["batch", "beams"]
) -> int:
    """Most requests at once, or beams of the recogniser, that the pair is expected to serve."""
    return largest_fitting(lambda n: plan(replace(request, **{what: n})).fits)


def largest_whisper(plans: list[PairPlan], *, margin_bytes: int = 0) -> PairPlan | None:
    """Of these plans the one with the most Whisper parameters that leaves the margin; the cheaper
    of equal ones; None where none does."""
    good = [plan for plan in plans if plan.margin_bytes >= margin_bytes]
    return max(
        good, key=lambda p: (catalog.whisper(p.asr_model).parameters, -p.total_bytes), default=None
    )


def cards_for(
    whisper: WhisperModel,
    voxtral: VoxtralModel,
    *,
    backend: str,
    dtype: str,
    request: Request | None = None,
) -> Iterator[PairPlan]:
    """The pair on every card of the catalog that computes in its dtype."""
    for card in catalog.CARDS.values():
        if (backend, dtype) in native_combinations(card):
            yield plan_pair(card, whisper, voxtral, backend=backend, dtype=dtype, request=request)
