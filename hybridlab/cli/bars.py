"""Bars of bytes against a capacity: a colour and a letter for each owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hybridlab.reporting.memory_stack import planned_stack
from hybridlab.reporting.palette import OWNER_COLOURS

if TYPE_CHECKING:
    from rich.text import Text

    from hybridlab.planner import PairPlan


@dataclass(frozen=True)
class Owner:
    """How an owner is drawn: a letter, a title, a colour."""

    letter: str
    title: str
    colour: str

    @property
    def style(self) -> str:
        return f"{'#ffffff' if self.letter == 'V' else 'black'} on {self.colour}"


_BASE = OWNER_COLOURS["base"]
OWNERS = {
    "llm": Owner("V", "Voxtral", OWNER_COLOURS["llm"]),
    "asr": Owner("W", "Whisper", OWNER_COLOURS["asr"]),
    "request": Owner("R", "request", OWNER_COLOURS["request"]),
    "load": Owner("L", "load copy", OWNER_COLOURS["load"]),
    "base": Owner("o", "rest", _BASE),
}
#: Everything together, where owners are not told apart.
WHOLE = Owner("#", "all", _BASE)
MARK = "|"
EMPTY = "·"


def owned(ledger: Mapping[str, int]) -> list[tuple[Owner, int]]:
    """A moment's bytes by drawn owner, from the planner's; what has no letter is the rest."""
    sums = dict.fromkeys(OWNERS, 0.0)
    for owner, n_bytes in planned_stack(ledger).items():
        sums[owner if owner in OWNERS else "base"] += n_bytes
    return [(OWNERS[owner], round(n_bytes)) for owner, n_bytes in sums.items()]


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
    for owner in OWNERS.values():
        found.append(owner.letter, owner.style)
        found.append(f" {owner.title}  ")
    found.append(MARK, "bold red")
    return found.append(f" {capacity} capacity")
