"""Arms held against each other, round by round: what differs, is a tie, or cannot be told."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Sequence

from hybridlab.analysis.arms import ArmStats, Figure, Readings, count
from hybridlab.analysis.stats import LEAST_READINGS, Estimate, holm, student
from hybridlab.units import MIB

#: Differences between peaks below this are the allocator's rounding, not a finding.
LEAST_DIFFERENCE_BYTES = 1 * MIB
LEAST_DIFFERENCE_SHARE = 0.005
#: How sure it is that an arm is the best: it is, or there is no other.
BEYOND, ONLY = "beyond all others", "the only one"


def difference(left: ArmStats, right: ArmStats, figure: Figure) -> Estimate:
    """Mean of left's readings less right's, paired by notebook and round (of notebooks that ran
    only one of the two: by round); logarithms of latency, throughput and peak, bytes of margin."""
    one, other = left.readings[figure], right.readings[figure]
    if not one.keys() & other.keys():
        one, other = _by_round(one), _by_round(other)
    return student(one[key] - other[key] for key in one if key in other)


def _by_round(readings: Readings) -> Readings:
    rounds: dict[tuple[str, Hashable], list[float]] = {}
    for (_, number), value in readings.items():
        rounds.setdefault(("", number), []).append(value)
    return {key: sum(values) / len(values) for key, values in rounds.items()}


def least_difference(left: ArmStats, right: ArmStats, figure: Figure) -> float:
    """What counts as a difference in this figure, in the unit of its readings."""
    if figure == "margin_bytes":
        return LEAST_DIFFERENCE_BYTES
    if figure != "peak_bytes":
        return 0.0
    return max(
        LEAST_DIFFERENCE_SHARE, LEAST_DIFFERENCE_BYTES / max(left.peak_bytes, right.peak_bytes)
    )


def held_apart(arms: Sequence[ArmStats], figure: Figure) -> Collection[frozenset[str]]:
    """The pairs of these arms that differ in a figure, by name. All pairs are one family: whoever
    is best is found by looking at all of them."""
    return holm(
        {
            frozenset((one.arm, other.arm)): difference(one, other, figure).beyond(
                least_difference(one, other, figure)
            )
            for one, other in itertools.combinations(arms, 2)
        }
    )


def ties(best: ArmStats, arms: Sequence[ArmStats], figure: Figure) -> list[ArmStats]:
    """The others of these arms that cannot be told from the best, in their order."""
    apart = held_apart(arms, figure)
    return [arm for arm in arms if arm is not best and frozenset((best.arm, arm.arm)) not in apart]


def how_sure(best: ArmStats, arms: Sequence[ArmStats], figure: Figure) -> str:
    """'beyond all others', 'a tie with a and 2 more', or why that cannot be told."""
    if len(arms) == 1:
        return ONLY
    if count(best.readings[figure]) < LEAST_READINGS:
        return f"too few {'clips' if figure == 'wer' else 'rounds'} to tell"
    alike = [arm.arm for arm in ties(best, arms, figure)]
    return f"a tie with {_names(alike)}" if alike else BEYOND


def _names(names: list[str]) -> str:
    """'a', 'a and b', 'a and 3 more'."""
    more = len(names) - 1
    return names[0] + ("" if not more else f" and {names[1] if more == 1 else f'{more} more'}")
