"""Memory as a stack of owners: the one model behind every such bar, in figures, live view, explorer
and terminal. A medium only draws the segments. No pandas, no matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridlab.reporting.labels import OWNERS, PLANNER_OWNERS
from hybridlab.reporting.palette import OWNER_LOOK

#: Bytes by owner, from the bottom to the top of the stack.
Stack = Mapping[str, float]
#: Colour and hatch by owner.
Look = Mapping[str, tuple[str, str]]

#: From this ratio of capacity to the longest bar on, the capacity is written instead of drawn: the
#: axis would be stretched until nothing can be read.
FAR = 6.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of a bar: its extent in the bar's unit, its name, its colour and hatch."""

    owner: str
    start: float
    size: float
    label: str
    colour: str
    hatch: str


def segments(
    stack: Stack, look: Look = OWNER_LOOK, names: Mapping[str, str] = OWNERS
) -> list[Segment]:
    """The parts of a stack one after the other; those without bytes are left out."""
    found, start = [], 0.0
    for owner, size in stack.items():
        if size > 0:
            colour, hatch = look[owner]
            part = {"label": names.get(owner, owner), "colour": colour, "hatch": hatch}
            found.append(Segment(owner=owner, start=start, size=size, **part))
            start += size
    return found


def legend(
    stacks: Iterable[Stack], look: Look = OWNER_LOOK, names: Mapping[str, str] = OWNERS
) -> list[Segment]:
    """One segment for each owner that is seen in some stack, in the order of `look`; its size is
    that of all stacks together."""
    totals = dict.fromkeys(look, 0.0)
    for stack in stacks:
        for owner, size in stack.items():
            totals[owner] += size
    return segments(totals, look, names)


def is_far(capacity: float, longest: float) -> bool:
    """Whether a capacity lies too far beyond the longest bar to be drawn on its axis."""
    return capacity > FAR * longest


# ------------------------------------------------------------------------- where stacks come from


def closed_stack(total: float, known: Stack, *, rest: str) -> dict[str, float]:
    """A stack that sums to `total`: each known owner as far as there is room, the remainder as
    `rest`. Pages of weights that are not touched yet are not resident on a CPU."""
    stack: dict[str, float] = {}
    left = total
    for owner, n_bytes in known.items():
        stack[owner] = min(n_bytes, left)
        left -= stack[owner]
    stack[rest] = stack.get(rest, 0) + left
    return stack


def planned_stack(owners: Mapping[str, float]) -> dict[str, float]:
    """The planner's owners of one moment as those that are drawn."""
    found = dict.fromkeys(OWNER_LOOK, 0.0)
    for owner, n_bytes in owners.items():
        found[PLANNER_OWNERS[owner]] += n_bytes
    return {owner: n_bytes for owner, n_bytes in found.items() if n_bytes}


def longest(stacks: Sequence[Stack]) -> float:
    """The highest total of these stacks, 0 of none."""
    return max((sum(stack.values()) for stack in stacks), default=0.0)
