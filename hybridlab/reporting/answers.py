"""The answer to each notebook's own question: a sentence or a few, each with its number, how many
readings stand behind it and how it is known; withheld where those are too few. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import LEAST_ROUNDS, ArmStats, count, numbers
from hybridlab.analysis.case_status import with_bytes
from hybridlab.analysis.differences import BEYOND, held_apart, how_sure
from hybridlab.catalog.device_names import simulated_card
from hybridlab.reporting import findings, labels, tables
from hybridlab.reporting.figures.memory import case_stack
from hybridlab.reporting.labels import OWNERS, percent
from hybridlab.reporting.rows import (
    CONTROL,
    RACE,
    case_labels,
    cases_of,
    complete_tables,
    evidence_of,
    measured,
    present,
    race_standings,
    worst_per_label,
)
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import counted, format_bytes, format_seconds


def known(rows: pd.DataFrame, *counts: str) -> str:
    """'(measured on cpu, n = 5 rounds)': how rows of a run are known, and how many there are."""
    devices = sorted({str(name) for name in present(rows, "device")})
    card = simulated_card(devices[0]) if len(devices) == 1 else None
    how = f"{evidence_of(rows)} on {' and '.join(devices)}"
    if card is not None:
        how = f"simulated {card.title.removeprefix('NVIDIA ')}"
    limited = ", inside a memory limit" if rows["memory_limited"].eq(True).all() else ""
    return f"({how}{limited}, n = {', '.join(counts)})"


@complete_tables
def baseline(cases: pd.DataFrame) -> list[str]:
    """01: what Voxtral takes at its highest, and whose each byte is."""
    rows = with_bytes(cases)
    sentences = []
    for _, row in rows.iterrows():
        stack = case_stack(row, "request_peak")
        if not stack:
            continue
        parts = [f"{OWNERS[owner]} {format_bytes(size)}" for owner, size in stack.items() if size]
        requests = counted(int(row["n_trials"]), "request")
        sentences.append(
            f"Voxtral {row['llm_model']} ({row['llm_weights']} weights, {row['llm_dtype']}) takes "
            f"{format_bytes(row['request_peak_bytes'])} at its request peak "
            f"{known(rows, '1 case', requests)}: {', '.join(parts)}."
        )
    return sentences


@complete_tables
def beside(cases: pd.DataFrame) -> list[str]:
    """02: which sizes fit, then the Whisper to pick of those that were measured."""
    rows = worst_per_label(cases)
    sizes = worst_per_label(cases_of(cases, "co_residency"))
    finding = f"{findings.simulated_words(rows)}{findings.memory_finding(rows)}."
    return [*_sizes_that_fit(sizes), *([finding] if len(with_bytes(rows)) else [])]


def _sizes_that_fit(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return []
    ran = with_bytes(rows)
    fits = ran[~(numbers(ran, "margin_bytes") < 0)]
    voxtral = rows["llm_model"].iloc[0]
    words = (
        f"{len(fits)} of {counted(len(rows), 'size')} fit beside Voxtral {voxtral} at "
        f"load, at rest and at work {known(rows, '1 case each')}"
    )
    lost = [f"{row['label']} ({_lack(row)})" for _, row in rows.drop(fits.index).iterrows()]
    told = labels.joined(list(fits["label"])) or "none"
    return [f"{words}: {told}{f'; not so {labels.joined(lost)}' if lost else ''}."]


def _lack(row: pd.Series) -> str:
    margin = labels.number_of(row, "margin_bytes")
    return labels.spare(margin) if margin < 0 else labels.status(row)


@complete_tables
def limits(cases: pd.DataFrame, probes: pd.DataFrame, cycles: pd.DataFrame) -> list[str]:
    """03: how long an audio and how big a batch, how much margin, what many cycles do."""
    return [*_largest(cases, probes), *_margin(cases, probes), *_ageing(cycles)]


#: What a search for a limit ends with, and in which unit.
_SEARCHED = {
    "audio_s": ("the longest audio", " s"),
    "batch": ("the largest batch", ""),
    "beams": ("the most beams", ""),
}


def _largest(cases: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    """The limits that were searched for; without a search the largest that was tried."""
    found = measured(cases_of(cases, "memory_limits"))
    found = found[found["limit_kind"].isin(list(_SEARCHED))]
    if found.empty:
        rows = tables.request_sizes(cases)
        tried = with_bytes(rows)
        if tried.empty:
            return []
        return [f"{findings.scaling_finding(rows)} {known(tried, '1 case each')}."]
    words = []
    for _, case in found.iterrows():
        name, unit = _SEARCHED[case["limit_kind"]]
        value = f"{case['limit_found']:g}{unit}" if case["limit_found"] else "not even the smallest"
        more = "" if case["limit_hit"] else " or more, since nothing failed"
        words.append(f"{name} is {value}{more} ({case['strategy']})")
    n = counted(int(probes["case_id"].isin(found["case_id"]).sum()), "probe")
    each = "1 search each" if len(found) > 1 else "1 search"
    return [f"{labels.capital(labels.joined(words))} {known(found, each, n)}."]


def _margin(cases: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    needs = tables.least_headrooms(probes, cases)
    if needs.empty:
        return []
    own = cases[cases["case_id"].isin(needs["case_id"])]
    return [f"{findings.survival_finding(needs)} {known(own, counted(len(needs), 'request'))}."]


def _ageing(cycles: pd.DataFrame) -> list[str]:
    """Whether memory grows over cycles, and which remedies leave no growth where it does."""
    arms = list(memory_growth.arms(cycles))
    if not arms:
        return []
    growing = {arm.name for arm in memory_growth.growing(arms)}
    least = min(len(arm.cycles) for arm in arms)
    n = known(cycles, f"{counted(len(arms), 'arm')} of {counted(least, 'cycle')}")
    words = findings.growth_finding(arms)
    if growing:
        helps = labels.joined(_remedies_that_help(arms, growing))
        words += f"; with {helps} none can be told" if helps else "; no remedy is seen to stop it"
    return [f"{words} {n}."]


def _remedies_that_help(arms: Sequence[memory_growth.Arm], growing: set[str]) -> list[str]:
    """The remedies under which nothing can be told to grow, of each strategy that grows without."""
    lost = {arm.strategy for arm in arms if arm.mitigation == "none" and arm.name in growing}
    tried = [arm for arm in arms if arm.strategy in lost and arm.mitigation != "none"]
    failed = {arm.mitigation for arm in tried if arm.name in growing}
    return [name for name in dict.fromkeys(arm.mitigation for arm in tried) if name not in failed]


# ------------------------------------------------------------------------------ races of arms


@complete_tables
def sequential(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """04: what the pair costs one model at a time, and what Voxtral alone does instead."""
    arms = race_standings(cases, trials)
    control = next((arm for arm in arms if arm.arm == CONTROL), None)
    if control is None:
        return _bytes_alone(cases)
    sentences = [
        f"{CONTROL} costs {format_seconds(control.latency_s.value)} a request and "
        f"{format_bytes(control.peak_bytes)} at its peak {_raced(cases, [control])}."
    ]
    alone = next((arm for arm in arms if arm.strategy == "solo"), None)
    if alone is None:
        return [*sentences, "Whether Whisper is needed is open: Voxtral alone did not race."]
    return [*sentences, f"{_is_whisper_needed(alone, control)} {_raced(cases, [alone, control])}."]


def _is_whisper_needed(alone: ArmStats, control: ArmStats) -> str:
    """By time, bytes and words, as far as rounds and clips tell the two apart."""
    ratio = labels.bracketed(alone.relative, "{:.2f}".format)
    saved = format_bytes(control.peak_bytes - alone.peak_bytes)
    facts = f"{alone.arm} takes {ratio} times as long and {saved} less"
    if control.peak_bytes < alone.peak_bytes:
        facts = f"{alone.arm} takes {ratio} times as long"
    words = _whose_words(alone, control)
    if few_rounds([alone, control]):
        return f"Too few rounds to tell whether Whisper is needed; so far {facts}{words}"
    gains = ["time"] * (_differ(alone, control) and alone.relative.value > 1)
    gains += ["words"] * _clearly_worse(alone, control)
    if gains:
        return f"Whisper is needed for {labels.joined(gains)}: {facts}{words}"
    unknown = math.isnan(alone.wer) or math.isnan(control.wer)
    of = "for time, of words nothing is known" if unknown else "for time or words"
    return f"Whisper is not seen to be needed {of}: {facts}{words}"


def _whose_words(alone: ArmStats, control: ArmStats) -> str:
    if math.isnan(alone.wer) or math.isnan(control.wer):
        return ""
    clips = counted(count(alone.readings["wer"]), "clip")
    told = f"; it gets {percent(alone.wer)} of the words wrong, Whisper {percent(control.wer)}"
    best, other = sorted((alone, control), key=lambda arm: arm.wer)
    sure = how_sure(best, [best, other], "wer")
    doubt = "" if sure == BEYOND else f", {sure.partition(' with ')[0]}"
    return f"{told}, n = {clips}{doubt}"


def _clearly_worse(alone: ArmStats, control: ArmStats) -> bool:
    worse = alone.wer > control.wer
    return worse and how_sure(control, [control, alone], "wer") == BEYOND


def _bytes_alone(cases: pd.DataFrame) -> list[str]:
    """Where nothing has a time that counts: what the race takes."""
    raced = cases_of(cases, RACE)
    rows = with_bytes(raced)
    if rows.empty:
        return []
    peaks = rows.assign(label=case_labels(rows)).groupby("label")["peak_bytes"].max().sort_values()
    told = ", ".join(f"{arm} {format_bytes(peak)}" for arm, peak in peaks.items())
    why = "no time can be compared" if has_clock(raced) else NO_TIMES
    return [f"At their peaks, smallest first {known(rows, _cases(rows))}: {told}; {why}."]


@complete_tables
def parallel(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """05: whether two models at work at once take less time than one after the other."""
    arms = race_standings(cases, trials)
    both = [arm for arm in arms if arm.strategy == "parallel"]
    control = next((arm for arm in arms if arm.arm == CONTROL), None)
    if not both or control is None:
        return _bytes_alone(cases)
    best = both[0]
    ratio = labels.bracketed(best.relative, "{:.2f}".format)
    told = f"{best.arm}, the fastest of {len(both)}, takes {ratio} times as long as {CONTROL}"
    n = _raced(cases, [best, control])
    if few_rounds([best, control]):
        return [f"Too few rounds to tell whether they run at once; so far {told} {n}."]
    if not _differ(best, control):
        return [f"That they run at once cannot be told: {told} {n}."]
    if best.relative.value > 1:
        return [f"No, they hinder each other: {told} {n}."]
    return [f"Yes, they overlap: {told} {n}."]


@complete_tables
def swapping(cases: pd.DataFrame, trials: pd.DataFrame, spans: pd.DataFrame) -> list[str]:
    """06: what swapping saves at rest and at the peak, and what each switch costs."""
    raced = with_bytes(cases_of(cases, RACE))
    raced = raced.assign(label=case_labels(raced))
    swaps = raced[raced["strategy"] == "swapping"]
    control = raced[raced["label"] == CONTROL]
    if swaps.empty or control.empty:
        return []
    sentences = []
    idle_bytes = numbers(swaps, "idle_bytes").groupby(swaps["label"]).median()
    least = str(idle_bytes.idxmin())
    own = swaps[swaps["label"] == least]
    rest, peak = (
        numbers(control, name).median() - numbers(own, name).median()
        for name in ("idle_bytes", "peak_bytes")
    )
    sentences.append(
        f"{least} saves {format_bytes(rest)} at rest and {_at_the_peak(peak)}, held against "
        f"{CONTROL} {known(own, _cases(own))}."
    )
    totals = tables.swap_seconds(spans, cases).sum(axis=1).sort_values()
    if len(totals):
        told = [f"{format_seconds(float(s))} ({variant})" for variant, s in totals.items()]
        stages = tables.swap_spans(spans, cases)
        own = stages[stages["variant"].isin(totals.index)]
        n = int(own.groupby("variant")["case_id"].nunique().min())
        few = "" if n >= LEAST_ROUNDS or len(totals) == 1 else "; too few to rank them"
        each = counted(n, "case") + (" each" if len(totals) > 1 else "")
        sentences.append(f"Each switch costs {labels.joined(told)} {known(swaps, each)}{few}.")
    return sentences


def _at_the_peak(n_bytes: float) -> str:
    size = format_bytes(abs(n_bytes))
    return f"{size} at the peak" if n_bytes >= 0 else f"takes {size} more at the peak"


def few_rounds(arms: Sequence[ArmStats]) -> bool:
    """Whether some arm has too few rounds for a word of difference."""
    return any(arm.few for arm in arms)


def _differ(one: ArmStats, other: ArmStats) -> bool:
    return bool(held_apart([one, other], "latency"))


def _raced(cases: pd.DataFrame, arms: Sequence[ArmStats]) -> str:
    own = cases[cases["case_id"].isin([name for arm in arms for name in arm.case_ids])]
    rounds = min(count(arm.readings["peak_bytes"]) for arm in arms)
    return known(own, counted(rounds, "round"))


def _cases(rows: pd.DataFrame) -> str:
    return counted(len(rows), "case")
