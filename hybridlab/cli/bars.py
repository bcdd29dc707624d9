"""Bars of bytes against a capacity: a colour and a letter for each owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from hybridlab.planner import PairPlan


@dataclass(frozen=True)
class Owner:
    """How an owner is drawn; the tenants' colours are those of `reporting.figures.style`."""

    letter: str
    title: str
    style: str
    #: The planner's owners that it stands for.
    names: tuple[str, ...]


OWNERS = (
    Owner("V", "Voxtral", "#ffffff on #0173b2", ("voxtral weights",)),
    Owner("W", "Whisper", "black on #de8f05", ("whisper weights",)),
    Owner("R", "request", "black on #029e73", ("request",)),
    Owner("L", "load copy", "black on #cc78bc", ("second copy",)),
    Owner("o", "rest", "black on #949494", ("context", "allocator slack")),
)
#: Everything together, where owners are not told apart.
WHOLE = Owner("#", "all", "black on #949494", ())
MARK = "|"
EMPTY = "·"


def owned(ledger: Mapping[str, int]) -> list[tuple[Owner, int]]:
    """A moment's bytes by drawn owner. An owner that nobody draws is a fault."""
    unknown = set(ledger) - {name for owner in OWNERS for name in owner.names}
    if unknown:
        raise ValueError(f"no bar has an owner for {', '.join(sorted(unknown))}")
    return [(owner, sum(ledger.get(name, 0) for name in owner.names)) for owner in OWNERS]


def worst_moment(plan: PairPlan) -> str:
    """The moment whose bytes are the plan's total."""
    return max(("load_peak", "request_peak"), key=lambda name: plan.moment(name).expected)


def bar(
    parts: Sequence[tuple[Owner, int]], *, capacity_bytes: int, scale_bytes: int, width: int
) -> Text:
    """`width` cells that stand for `scale_bytes`, and the capacity's mark among them.

    Borders are rounded, not sizes, so that the whole is as long as it should be.
    """
    from rich.text import Text

    cells: list[tuple[str, str]] = []
    total = 0
    for owner, n_bytes in parts:
        total += n_bytes
        end = min(width, round(width * total / scale_bytes))
        cells += [(owner.letter, owner.style)] * (end - len(cells))
    cells += [(EMPTY, "dim")] * (width - len(cells))
    cells.insert(min(width, round(width * capacity_bytes / scale_bytes)), (MARK, "bold red"))
    return Text.assemble(*cells)


def legend(capacity: str) -> Text:
    """What the letters and the mark say; `load copy` is a checkpoint that is held a second time
    while it loads."""
    from rich.text import Text

    found = Text()
    for owner in OWNERS:
        found.append(owner.letter, owner.style)
        found.append(f" {owner.title}  ")
    found.append(MARK, "bold red")
    return found.append(f" {capacity} capacity")
