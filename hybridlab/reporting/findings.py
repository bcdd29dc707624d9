"""What a run shows, computed once as data and worded once: titles of figures, cards and the answer
of the report say the same. No torch, no matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hybridlab import catalog
from hybridlab.analysis import memory_growth, queueing
from hybridlab.analysis.arms import LEAST_ROUNDS, ArmStats, numbers
from hybridlab.analysis.case_status import with_bytes
from hybridlab.analysis.differences import BEYOND, ONLY, how_sure, ties
from hybridlab.analysis.pick import DEFAULT_MARGIN_BYTES, rank
from hybridlab.catalog.device_names import simulated_card
from hybridlab.reporting import labels
from hybridlab.reporting.rows import case_labels, complete_tables, present
from hybridlab.reporting.tables.quality import Quality
from hybridlab.units import MIB, counted, format_bytes, format_number, format_seconds

# --------------------------------------------------------------------------------- what fits


@dataclass(frozen=True, kw_only=True)
class PickedCase:
    """Of the cases that ran the one with the Whisper to pick, by the rule of a plan, or where all
    have the same the one with the highest peak (`by` says which); how many ran and did not."""

    label: str
    asr_model: str
    peak_bytes: float
    margin_bytes: float
    by: str
    ran: int
    lost: str


def picked_case(cases: pd.DataFrame) -> PickedCase | None:
    """None where no case has a peak."""
    labelled = cases.assign(label=case_labels(cases), peak_bytes=numbers(cases, "peak_bytes"))
    fine = with_bytes(labelled)
    fine = fine[fine["peak_bytes"].notna()].sort_values("peak_bytes", ascending=False)
    if fine.empty:
        return None
    sizes, top = present(fine, "asr_model").nunique(), fine.iloc[0]
    if sizes > 1:
        top = min((row for _, row in fine.iterrows()), key=_pick_order)
    known = catalog.WHISPERS.get(labels.text_of(top, "asr_model"))
    rated = sizes > 1 and known is not None and known.published_wer is not None
    return PickedCase(
        label=top["label"],
        asr_model=labels.text(top.get("asr_model")),
        peak_bytes=top["peak_bytes"],
        margin_bytes=labels.number_of(top, "margin_bytes"),
        by="the lowest published WER" if rated else "the largest",
        ran=len(fine),
        lost=lost_words(labelled.drop(fine.index)),
    )


def _pick_order(row: pd.Series[Any]) -> tuple[float, ...]:
    """Sorts rows as plans are: what leaves the margin first, what has no Whisper last."""
    names = [labels.text_of(row, f"asr_{name}") for name in ("model", "backend", "dtype")]
    if names[0] not in catalog.WHISPERS:
        return (math.inf,)
    return not labels.number_of(row, "margin_bytes") >= DEFAULT_MARGIN_BYTES, *rank(*names)


def memory_finding(cases: pd.DataFrame) -> str:
    """'large-v3 fits with 2.43 GiB to spare, the lowest published WER of 6 that ran'."""
    top = picked_case(cases)
    if top is None:
        return f"Not one of {counted(len(cases), 'case')} could be measured"
    words = f"{top.label} peaks at {format_bytes(top.peak_bytes)}"
    if top.margin_bytes < 0:
        words = f"{top.label} ran, yet is {labels.spare(top.margin_bytes)} of what others leave"
    elif math.isfinite(top.margin_bytes):
        words = f"{top.label} fits with {labels.spare(top.margin_bytes)}"
    words += f", {top.by} of {top.ran} that ran" if top.ran > 1 else ""
    return words + (f"; {top.lost}" if top.lost else "")


def lost_words(cases: pd.DataFrame) -> str:
    """'1 skipped, 2 stopped': what became of cases without a reading; '' of none."""
    found = [labels.status(row) for _, row in cases.iterrows()]
    return ", ".join(f"{found.count(word)} {word}" for word in dict.fromkeys(found))


def simulated_words(cases: pd.DataFrame) -> str:
    """'On a simulated T4, ' where all rows are of one simulated card; '' elsewhere."""
    devices = set(present(cases, "device"))
    card = simulated_card(devices.pop()) if len(devices) == 1 else None
    return f"On a simulated {card.title.removeprefix('NVIDIA ')}, " if card else ""


# ------------------------------------------------------------------------------ what overflowed


@complete_tables
def overflow_findings(cases: pd.DataFrame) -> list[str]:
    """A sentence for each LLM and dtype whose first logits were not finite in some case."""
    lost = cases[cases["llm_logits_finite"].eq(False)]
    return [
        f"{dtype} overflows in Voxtral {model}: the logits of its first request were not finite "
        f"numbers in {counted(len(own), 'case')}, so that its texts are left out and its "
        f"times are of tokens without words; choose llm_dtype "
        f"{' or '.join(name for name in catalog.WIDE_DTYPES if name != dtype)}."
        for (model, dtype), own in lost.groupby(["llm_model", "llm_dtype"], sort=False)
    ]


# ----------------------------------------------------------------------------- which is fastest


def fastest_words(arms: Sequence[ArmStats]) -> str:
    """Which of these arms, fastest first, is fastest, or that the rounds do not say."""
    best, *others = arms
    value = format_seconds(best.latency_s.value)
    if not others:
        return f"{best.arm} takes {value} per request"
    sure = how_sure(best, arms, "latency")
    if sure == BEYOND:
        ratio = others[0].relative.value / best.relative.value
        return (
            f"{best.arm} is fastest: {value} per request, {ratio:.3g} times as fast as "
            f"{others[0].arm}"
        )
    return f"{best.arm} has the lowest median, {value}, {sure}"


def pareto_front(arms: Iterable[ArmStats]) -> list[ArmStats]:
    """The arms that no other beats in latency without a higher peak, fastest first."""
    front: list[ArmStats] = []
    for arm in sorted(arms, key=lambda arm: (arm.relative.value, arm.peak_bytes)):
        if not front or arm.peak_bytes < front[-1].peak_bytes:
            front.append(arm)
    return front


def pareto_finding(front: Sequence[ArmStats], arms: Sequence[ArmStats]) -> str:
    """What the smallest arm of the front saves against the fastest, and what it costs in time, as
    far as the rounds say."""
    fastest, smallest, count = front[0], front[-1], len(arms)
    if fastest.few or smallest.few:
        return f"{fastest.arm} is the fastest of {count} arms so far, in too few rounds to tell"
    if len(front) == 1:
        sure = {how_sure(fastest, arms, figure) for figure in ("latency", "peak_bytes")}
        tie = "; ".join(sorted(sure - {BEYOND, ONLY}))
        both = f"{fastest.arm} is both the fastest and the smallest of {count} arms"
        return f"{both}, {tie}" if tie else both
    saved = fastest.peak_bytes - smallest.peak_bytes
    slower = smallest.relative.value / fastest.relative.value
    words = f"saves {format_bytes(saved)} against {fastest.arm}"
    if smallest in ties(fastest, arms, "peak_bytes"):
        words = f"ties with {fastest.arm} in memory"
    if smallest in ties(fastest, arms, "latency"):
        return f"{smallest.arm} {words} and ties with it in latency, of {count} arms"
    return (
        f"{len(front)} of {count} arms are not beaten in both: {smallest.arm} {words} and takes "
        f"{slower:.2f} times as long"
    )


def throughput_finding(arms: Sequence[ArmStats]) -> str:
    """Which arm serves most, as far as the rounds say; '' without a rate."""
    known = sorted(
        (arm for arm in arms if not math.isnan(arm.rate.value)), key=lambda arm: -arm.rate.value
    )
    if not known:
        return ""
    best = known[0]
    served = f"{format_number(60 * best.throughput_rps)} requests per minute"
    sure = how_sure(best, known, "throughput")
    if sure == ONLY:
        return f"{best.arm} serves {served}"
    if sure == BEYOND:
        return f"{best.arm} serves most, {served}"
    return f"{best.arm} has the highest throughput, {served}, {sure}"


def pooled_words(rows: pd.DataFrame) -> str:
    """Which notebooks the rows come from where there are several, within which alone arms took
    turns; else ''."""
    notebooks = sorted({str(name)[:2] for name in present(rows, "notebook")})
    return f"pooled over notebooks {', '.join(notebooks)}" if len(notebooks) > 1 else ""


# ------------------------------------------------------------------------------ growth, quality


def growth_finding(arms: Sequence[memory_growth.Arm]) -> str:
    """Which arms leave memory growing, judged together by their trends."""
    slopes = {arm.name: arm.slope(arm.occupied) for arm in arms}
    known = {name: slope for name, slope in slopes.items() if np.isfinite(slope.value)}
    if not known:
        return "Too few cycles to see a trend"
    growing = [arm.name for arm in memory_growth.growing(arms)]
    if not growing:
        return "No growth can be told from zero, under any strategy and remedy"
    worst = max(growing, key=lambda name: known[name].value)
    words = f"{known[worst].value / MIB:.3g} MiB per {memory_growth.PER_CYCLES} cycles ({worst})"
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
        fine = with_bytes(own)
        fine = fine[fine["request_peak_bytes"].notna()]
        if fine.empty:
            words.append(f"no {'audio' if kind == 'audio_s' else 'batch'} was served")
            continue
        top = fine.iloc[-1]
        peak = format_bytes(top["request_peak_bytes"])
        words.append(f"{labels.limit_name(str(kind), top['size'])} peaks at {peak}")
        margin = labels.number_of(top, "margin_bytes")
        if np.isfinite(margin):
            words[-1] += f" ({labels.spare(margin)})"
    lost = lost_words(rows.drop(with_bytes(rows).index))
    title = labels.capital(", ".join(words))
    return title + (f"; of {len(rows)} sizes {lost}" if lost else "")


def survival_finding(headrooms: pd.DataFrame) -> str:
    """What each strategy needs above the resident pair, of rows as `least_headrooms` has them."""
    needs = headrooms.groupby("strategy", sort=False)["headroom_bytes"].median().sort_values()
    cases = int(headrooms.groupby("strategy")["case_id"].nunique().min())
    most, least = str(needs.index[-1]), str(needs.index[0])
    words = f"{most} needs {format_bytes(needs[most])} above the resident pair in the median"
    if least != most:
        words += f", {least} {format_bytes(needs[least])}; {counted(cases, 'case')} each"
        words += ", too few to tell" if cases < LEAST_ROUNDS else ""
    return labels.capital(words)


def load_finding(points: pd.DataFrame) -> str:
    """Which arm holds most requests before its knee, of rows as `arrival_points` has them; where
    there are too few requests for that, how long they wait."""
    if points["p95_s"].isna().any():
        return _wait_finding(points)
    held = queueing.knees(points)
    most = {str(arm): rate for arm, rate in points.groupby("arm")["rate_rps"].max().items()}
    highest = max(most.values())
    if held == most:
        asked = format_number(highest)
        return f"No arm reaches its knee, asked for up to {asked} requests per second"
    # an arm without a knee that was asked for less at most has shown less, not held less
    known = {a: rate for a, rate in held.items() if rate < most[a] or rate == highest}
    if not known:
        return "No arm holds any of these rates"
    best, worst = max(known, key=lambda arm: known[arm]), min(known, key=lambda arm: known[arm])
    words = f"{best} holds {format_number(known[best])} requests per second before its knee"
    if known[best] != known[worst]:
        return f"{words}, {worst} {format_number(known[worst])}"
    return words if len(known) == 1 else f"All {len(known)} arms hold the same rate: {words}"


def _wait_finding(points: pd.DataFrame) -> str:
    """Of the arm that waits least at the highest rate, and of the one that waits most."""
    last = points.sort_values("rate_rps").groupby("arm").last()["queue_time_s"]
    best, worst = str(last.idxmin()), str(last.idxmax())
    words = f"At the highest rate half of the requests wait {format_seconds(last[best])} ({best})"
    if best != worst:
        words += f" to {format_seconds(last[worst])} ({worst})"
    return f"{words} or longer; too few requests for a p95 and a knee"


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
