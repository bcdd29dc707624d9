"""What a run shows, computed once as data and worded once: titles of figures, cards and the answer
of the report say the same. No torch, no matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hybridlab import catalog
from hybridlab.analysis import memory_growth, queueing
from hybridlab.analysis.arms import ArmStats, numbers
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.catalog.device_names import simulated_card
from hybridlab.reporting import labels
from hybridlab.reporting.rows import case_labels, measured, present
from hybridlab.reporting.tables.quality import Quality
from hybridlab.units import MIB, format_bytes, format_number, format_seconds

# --------------------------------------------------------------------------------- what fits


@dataclass(frozen=True, kw_only=True)
class LargestCase:
    """Of the cases that ran the one with the highest peak, and how many ran and did not."""

    label: str
    asr_model: str
    peak_bytes: float
    margin_bytes: float
    ran: int
    lost: int


def largest_case(cases: pd.DataFrame) -> LargestCase | None:
    """None where no case has a peak."""
    labelled = cases.assign(label=case_labels(cases), peak_bytes=numbers(cases, "peak_bytes"))
    fine = measured(labelled)
    fine = fine[fine["peak_bytes"].notna()]
    if fine.empty:
        return None
    top = fine.iloc[int(fine["peak_bytes"].to_numpy().argmax())]
    return LargestCase(
        label=top["label"],
        asr_model=labels.text(top.get("asr_model")),
        peak_bytes=top["peak_bytes"],
        margin_bytes=labels.number_of(top, "margin_bytes"),
        ran=len(fine),
        lost=len(cases) - len(fine),
    )


def memory_finding(cases: pd.DataFrame) -> str:
    """'medium fits with 3.10 GiB to spare', of the largest case that ran."""
    top = largest_case(cases)
    if top is None:
        return f"Not one of {labels.counted(len(cases), 'case')} could be measured"
    words = f"{top.label} peaks at {format_bytes(top.peak_bytes)}"
    if top.margin_bytes < 0:
        words = f"{top.label} ran, yet is {labels.spare(top.margin_bytes)} of what others leave"
    elif math.isfinite(top.margin_bytes):
        words = f"{top.label} fits with {labels.spare(top.margin_bytes)}"
    words += f", the largest of {top.ran} that ran" if top.ran > 1 else ""
    return words + (f"; {top.lost} could not be measured" if top.lost else "")


def simulated_words(cases: pd.DataFrame) -> str:
    """'On a simulated T4, ' where all rows are of one simulated card; '' elsewhere."""
    devices = set(present(cases, "device"))
    card = simulated_card(devices.pop()) if len(devices) == 1 else None
    return f"On a simulated {card.title.removeprefix('NVIDIA ')}, " if card else ""


# ----------------------------------------------------------------------------- which is fastest


@dataclass(frozen=True, kw_only=True)
class FastestArm:
    """The arm with the lowest median latency; `ties` are the arms whose intervals overlap its own,
    `ratio` the runner-up's median over its own. `sure`: both have an interval."""

    arm: str
    latency_s: Interval
    runner_up: str
    ratio: float
    ties: Sequence[str]
    sure: bool


def fastest_arm(intervals: Mapping[str, Interval]) -> FastestArm:
    """From the median latency (s) of at least one arm."""
    first, *others = sorted(intervals, key=lambda arm: intervals[arm].value)
    best = intervals[first]
    second = intervals[others[0]] if others else best
    return FastestArm(
        arm=first,
        latency_s=best,
        runner_up=others[0] if others else "",
        ratio=second.value / best.value,
        ties=[arm for arm in others if best.overlaps(intervals[arm])],
        sure=math.isfinite(best.low) and math.isfinite(second.low),
    )


def fastest_words(intervals: Mapping[str, Interval], *, pooled: bool = False) -> str:
    """Which arm is fastest, or that the intervals do not say.

    Arms `pooled` over notebooks did not take turns with each other, so no ratio is claimed.
    """
    best = fastest_arm(intervals)
    value = format_seconds(best.latency_s.value)
    if not best.runner_up:
        return f"{best.arm} takes {value} per request"
    lowest = f"{best.arm} has the lowest median, {value}"
    if not best.sure:
        return f"{lowest}, of too few requests for an interval"
    if best.ties:
        return f"{lowest}, {overlapping(best.ties)}"
    if pooled:
        return f"{lowest} per request; arms took turns within a notebook only"
    fast = f"{best.arm} is fastest: {value} per request"
    return f"{fast}, {best.ratio:.3g} times as fast as {best.runner_up}"


def overlapping(names: Sequence[str]) -> str:
    """Why no order is claimed: 'but its interval overlaps that of a and 2 more'."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"but its interval overlaps that of {names[0]}{more}"


def pareto_front(arms: Iterable[ArmStats]) -> list[ArmStats]:
    """The arms that no other beats in latency without a higher peak, fastest first."""
    front: list[ArmStats] = []
    for arm in sorted(arms, key=lambda arm: (arm.relative.value, arm.peak_bytes)):
        if not front or arm.peak_bytes < front[-1].peak_bytes:
            front.append(arm)
    return front


def pareto_finding(front: Sequence[ArmStats], count: int) -> str:
    """What the smallest arm of the front saves against the fastest, and what it costs in time."""
    fastest, smallest = front[0], front[-1]
    if len(front) == 1:
        return f"{fastest.arm} is both the fastest and the smallest of {count} arms"
    saved = fastest.peak_bytes - smallest.peak_bytes
    slower = smallest.relative.value / fastest.relative.value
    return (
        f"{len(front)} of {count} arms are not beaten in both: {smallest.arm} saves "
        f"{format_bytes(saved)} against {fastest.arm} and takes {slower:.2f} times as long"
    )


def pooled_words(rows: pd.DataFrame) -> str:
    """Which notebooks the rows come from where there are several, within which alone arms took
    turns; else ''."""
    notebooks = sorted({str(name)[:2] for name in present(rows, "notebook")})
    return f"pooled over notebooks {', '.join(notebooks)}" if len(notebooks) > 1 else ""


# ------------------------------------------------------------------------------ growth, quality


def growth_finding(arms: Sequence[memory_growth.Arm]) -> str:
    """Which arms leave memory growing, judged by the interval of the trend."""
    slopes = {arm.name: arm.slope(arm.occupied) for arm in arms}
    known = {name: slope for name, slope in slopes.items() if np.isfinite(slope.value)}
    if not known:
        return "Too few cycles to see a trend"
    growing = [arm.name for arm in memory_growth.growing(arms)]
    if not growing:
        return "No growth can be told from zero, under any strategy and remedy"
    worst = max(growing, key=lambda name: known[name].value)
    words = f"{known[worst].value / MIB:.3g} MiB per {memory_growth.PER_CYCLES} cycles ({worst})"
    step = next(arm for arm in arms if arm.name == worst).single_step(arms[0].occupied)
    if step is not None:
        words += f", most of it in one step of {step / MIB:.3g} MiB"
    if len(known) == 1:
        return f"Memory grows by {words}"
    most = "by" if len(growing) == 1 else "at most by"
    return f"Memory grows in {len(growing)} of {len(known)} arms, {most} {words}"


def quality_finding(found: Sequence[Quality]) -> str:
    """Whose text is best, and what the model with the least memory gives up for it."""
    best, smallest = found[0], min(found, key=lambda one: one.peak_bytes)
    share = labels.percent(best.wer.value)
    wrong = f"{share} of the" if best.wer.value else f"none of {best.words}"
    words = f"{best.name} gets {wrong} words wrong"
    if smallest is best:
        return words + (" and takes the least memory, too" if len(found) > 1 else "")
    memory = labels.percent(smallest.peak_bytes / best.peak_bytes)
    clear = ", which is not clearly more" if smallest.word == "best" else ""
    rate = labels.percent(smallest.wer.value)
    return f"{words}; {smallest.name}, with {memory} of its memory, gets {rate}{clear}"


# ------------------------------------------------------------------------- limits, loads, swaps


def scaling_finding(rows: pd.DataFrame) -> str:
    """The largest sizes that were served, of rows as `request_sizes` has them."""
    words = []
    for kind, own in rows.groupby("scaling_kind"):
        fine = measured(own)
        fine = fine[fine["request_peak_bytes"].notna()]
        if fine.empty:
            words.append(f"no {'audio' if kind == 'audio_s' else 'batch'} could be served")
            continue
        top = fine.iloc[-1]
        peak = format_bytes(top["request_peak_bytes"])
        words.append(f"{labels.limit_name(str(kind), top['size'])} peaks at {peak}")
        margin = labels.number_of(top, "margin_bytes")
        if np.isfinite(margin):
            words[-1] += f" ({labels.spare(margin)})"
    lost = int((rows["status"] != "ok").sum())
    title = labels.capital(", ".join(words))
    return title + (f"; {lost} of {len(rows)} sizes failed" if lost else "")


def headroom_intervals(headrooms: pd.DataFrame) -> dict[str, Interval]:
    """The median of the least headroom in bytes by strategy, of rows as `least_headrooms` has
    them."""
    groups = headrooms.groupby("strategy", sort=False)["headroom_bytes"]
    return {str(strategy): bootstrap_interval(own.astype(float)) for strategy, own in groups}


def survival_finding(needs: Mapping[str, Interval]) -> str:
    """Which strategy breaks first, or that the intervals do not say."""
    first, *others = sorted(needs, key=lambda name: -needs[name].value)
    room = f"{format_bytes(needs[first].value)} above the resident pair"
    ties = [name for name in others if needs[first].overlaps(needs[name])]
    if ties:
        return labels.capital(f"{first} needs most in the median, {room}, {overlapping(ties)}")
    words = f"{first} breaks first: it needs {room}"
    if others:
        words += f", {others[-1]} {format_bytes(needs[others[-1]].value)}"
    return labels.capital(words)


def load_finding(points: pd.DataFrame) -> str:
    """Which arm holds most requests before its knee, of rows as `arrival_points` has them."""
    most = points.groupby("arm")["rate_rps"].max().to_dict()
    highest = max(most.values())
    # an arm without a knee that was asked for less at most has shown less, not held less
    knees = queueing.knees(points)
    held = {a: rate for a, rate in knees.items() if rate < most[a] or most[a] == highest}
    if min(held.values()) == highest:
        asked = format_number(highest)
        return f"No arm reaches its knee, asked for up to {asked} requests per second"
    best, worst = max(held, key=lambda arm: held[arm]), min(held, key=lambda arm: held[arm])
    if len(held) == 1:
        return f"{best} holds {format_number(held[best])} requests per second before its knee"
    if held[best] == held[worst]:
        same = format_number(held[best])
        return f"All {len(held)} arms hold the same rate, {same} requests per second"
    return (
        f"{best} holds {format_number(held[best])} requests per second before its knee, "
        f"{worst} {format_number(held[worst])}"
    )


#: Variants whose copies run behind other work.
HIDDEN = [variant.name for variant in catalog.strategy("swapping") if variant.overlaps_copies]


def swap_finding(totals: pd.Series[float]) -> str:
    """The cheapest swap that hides nothing, against the reload; totals in s by variant."""
    seen = totals.drop(HIDDEN, errors="ignore")
    if seen.empty:
        return (
            f"{totals.index[0]} swaps in {format_seconds(float(totals.iloc[0]))}, behind other work"
        )
    best = str(seen.idxmin())
    text = f"{best} takes {format_seconds(float(seen[best]))} to swap"
    if "reload-cached" in seen and best != "reload-cached":
        reload_s = float(seen["reload-cached"])
        text += f", reload-cached {format_seconds(reload_s)}: "
        text += f"{reload_s / float(seen[best]):.3g} times as long"
    return text
