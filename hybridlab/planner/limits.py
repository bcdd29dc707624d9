"""The planner asked backwards: what is the most that fits?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hybridlab import catalog
from hybridlab.catalog import Attention, Card, VoxtralModel
from hybridlab.planner.activations import Request, voxtral_request_bytes
from hybridlab.planner.memory_plan import PairPlan, default_voxtral_dtype

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
