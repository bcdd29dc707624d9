"""What changed between two runs beyond noise.

A figure counts as changed only where the 95 % interval of its ratio lies wholly outside the noise
around 1. The noise is measured: how far the same way's own cases (its rounds, and the notebooks
that repeat it) lie apart within one run. A bootstrap over requests alone would not see that a
machine drifts between cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hybridlab.analysis.standings import LEAST_DIFFERENCE_SHARE, LEAST_TRIALS
from hybridlab.analysis.stats import STABLE_HALF_WIDTH, Interval, ratio_interval
from hybridlab.reporting.html.model import Run, is_missing, words

Word = Literal["changed", "no change", "not told", "not compared"]

LEAST_NOISE = 0.02
#: Where nothing was measured twice, the noise is what still counts as stable.
UNKNOWN_NOISE = STABLE_HALF_WIDTH
#: An allocator's bytes repeat far better than times; a process's resident memory does not: two
#: runs of one preset on one CPU differ by up to 1.5 %.
BYTES_NOISE = {"cuda": LEAST_DIFFERENCE_SHARE, "cpu": LEAST_NOISE}
#: A peak or a throughput is one value a case, a latency one a request.
LEAST_CASES = 2


@dataclass(frozen=True)
class Change:
    """A ratio to the first run with its interval, and what follows from it."""

    ratio: Interval
    word: Word
    why: str = ""


def change(
    before: Sequence[float],
    after: Sequence[float],
    *,
    noise: float,
    least_n: int = LEAST_CASES,
    refused: str = "",
) -> Change:
    """Whether `after` differs from `before` beyond `noise` (0.02 is 2 %).

    `refused` says why the two must not be compared. One value on either side has no interval: the
    ratio itself then stands for both of its ends."""
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    if refused:
        return Change(nothing, "not compared", refused)
    if not (before and after):
        return Change(nothing, "not compared", "measured in one of the two only")
    ratio = ratio_interval(before, after)
    if ratio.n < least_n:
        return Change(ratio, "not told", f"n = {ratio.n}, of which {least_n} are needed")
    low, high = (ratio.value if ratio.n == 1 else bound for bound in (ratio.low, ratio.high))
    outside = low > 1 + noise or high < 1 / (1 + noise)
    return Change(ratio, "changed" if outside else "no change")


def own_noise(groups: Iterable[Sequence[float]]) -> float:
    """How far apart one way's own cases lie: of each run's group of case medians the largest over
    the smallest, less 1. Not-a-number where no run has two."""
    spreads = [
        max(medians) / min(medians) - 1
        for medians in groups
        if len(medians) > 1 and min(medians) > 0
    ]
    return max(spreads, default=math.nan)


def noise_of(
    groups: Iterable[Sequence[float]],
    elsewhere: Iterable[float],
    *,
    least: float = LEAST_NOISE,
    unknown: float = UNKNOWN_NOISE,
) -> float:
    """The noise of a way: its own, else the median of the others' (`elsewhere`), else `unknown`;
    never below `least`."""
    own = own_noise(groups)
    known = sorted(value for value in elsewhere if not math.isnan(value))
    if math.isnan(own):
        own = known[len(known) // 2] if known else unknown
    return max(least, own)


def times_refused(first: Run, other: Run) -> str:
    """Why the times of two runs must not be compared; '' where they may."""
    if reason := _versions_refused(first, other):
        return reason
    if _enveloped(first) != _enveloped(other):
        return "one of them ran inside an envelope, where times do not speak for the card"
    return ""


def bytes_refused(first: Run, other: Run) -> str:
    """Why the bytes of two runs must not be compared; '' where they may."""
    if reason := _versions_refused(first, other):
        return reason
    kinds = [device_kind(run) for run in (first, other)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} and {kinds[1]} count their bytes in different ways"
    return ""


def refusals(runs: dict[str, Run]) -> list[str]:
    """Each pair of runs whose times or bytes are not compared, and why."""
    (first, run_a), *others = runs.items()
    told = []
    for letter, run in others:
        times, held = times_refused(run_a, run), bytes_refused(run_a, run)
        if times and times == held:
            told.append(f"{letter} is not compared with {first}: {times}.")
        else:
            told += [f"Times of {letter} are not compared with {first}: {times}."] if times else []
            told += [f"Bytes of {letter} are not compared with {first}: {held}."] if held else []
    return told


def _versions_refused(first: Run, other: Run) -> str:
    versions = [run.origin("measurement_version") for run in (first, other)]
    if any(is_missing(version) for version in versions):
        return "a run does not say by which version of the method it was measured"
    if versions[0] != versions[1]:
        told = " and ".join(words(version) for version in versions)
        return f"measured by versions {told} of the method"
    return ""


def device_kind(run: Run) -> str:
    """'cpu' or 'cuda', as far as the cases say."""
    devices = run.cases["device"].dropna().astype(str)
    return ", ".join(sorted({name.split(":")[0] for name in devices})) or "no device"


def _enveloped(run: Run) -> bool:
    return bool(run.cases["enveloped"].fillna(False).astype(bool).any())


RULE = (
    "A figure is marked as changed only where the 95 % interval of its ratio to run A lies wholly "
    "outside the noise around 1. The noise is measured: how far the same way's own cases lie apart "
    f"within one run, and at least {LEAST_NOISE:.0%} for times ({UNKNOWN_NOISE:.0%} where nothing "
    f"was measured twice), {BYTES_NOISE['cpu']:.0%} for the resident memory of a process on a CPU "
    f"and {BYTES_NOISE['cuda']:.1%} for an allocator's bytes. "
    f"A latency needs {LEAST_TRIALS} requests in each run, a throughput or a peak {LEAST_CASES} "
    "cases. A size that was measured once has no interval: its ratio itself must lie outside the "
    "noise of the ways' peaks."
)
