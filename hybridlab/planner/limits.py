"""The planner asked backwards: what is the most that fits?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hybridlab import catalog
from hybridlab.planner.activations import Request

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


def longest_audio_s(fits: Callable[[float], bool]) -> float:
    """Longest audio in seconds, in whole windows, for which `fits`: a plan of the pair, so that
    what a recogniser's windows take counts as well. 0 where not even one window does."""
    most = int(catalog.VOXTRAL_MAX_ANSWER_S // catalog.WINDOW_S)
    return largest_fitting(lambda n: fits(n * catalog.WINDOW_S), most=most) * catalog.WINDOW_S


def most_served(
    fits: Callable[[Request], bool], request: Request, what: Literal["batch", "beams"]
) -> int:
    """Most requests at once, or beams of the recogniser, for which `fits`."""

    def of(n: int) -> Request:
        return replace(request, batch=n) if what == "batch" else replace(request, beams=n)

    return largest_fitting(lambda n: fits(of(n)))
