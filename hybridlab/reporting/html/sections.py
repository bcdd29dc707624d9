"""The page's sentences and key figures, computed from a run's rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridlab import MEASUREMENT_VERSION
from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting.figures import speed, wording
from hybridlab.reporting.figures.memory import memory_finding, simulated_words
from hybridlab.reporting.html.about import outcome
from hybridlab.reporting.html.model import (
    Run,
    as_bytes,
    as_seconds,
    is_missing,
    words,
)
from hybridlab.reporting.html.tables import cases_of, interval_words, race_trials
from hybridlab.results.records import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import format_bytes, format_seconds

# ---------------------------------------------------------------------------------------- answer


def answer(run: Run) -> str:
    """The verdict's sentence, or what the rows alone say."""
    given = words(run.verdict.get("answer"), empty="")
    if given:
        return given
    said = []
    beside = cases_of(run.cases, "beside")
    if len(beside):
        where = simulated_words(beside) or "Beside Voxtral, "
        said.append(f"{where}{memory_finding(wording.worst_per_label(beside))}.")
    intervals = speed.arm_intervals(race_trials(run))
    if intervals:
        finding = speed.fastest_words(intervals, pooled=speed.is_pooled(race_trials(run)))
        said.append(f"{_capital(finding)}.")
    if not said:
        return "This run has not measured anything that answers the question."
    return " ".join(said)


def simulated(run: Run) -> list[str]:
    """What runs on simulated cards in this run's folder say of what fits, and what that is."""
    said = []
    for inner in run.inner:
        beside = cases_of(inner.cases, "beside")
        if len(beside):
            finding = memory_finding(wording.worst_per_label(beside))
            pair = words(beside["voxtral"].iloc[0])
            said.append(
                f"{simulated_words(beside)}{finding} (beside Voxtral {pair}, random weights; the "
                "card's own allocator and choice of kernels without a GPU, for bytes alone)."
            )
    return said


def recommendation(run: Run) -> list[tuple[str, str]]:
    """The verdict's recommendation as label and text; empty without one."""
    given = run.verdict.get("recommendation")
    if not isinstance(given, dict):
        return []
    labels = {
        "pair": "Pair",
        "strategy": "Strategy",
        "variant": "Variant",
        "why": "Why",
        "runner_up": "Runner-up",
        "why_not": "Why not the runner-up",
    }
    rows = [(label, words(given.get(name), empty="")) for name, label in labels.items()]
    if isinstance(given.get("flips"), float):
        share = f"{given['flips']:.0%}"
        rows.append(("How firm", f"another way wins in {share} of draws of the same trials"))
    rows.append(("It had to keep", constraints(run)))
    goals = [goal for goal in given.get("goals") or [] if isinstance(goal, dict)]
    rows += [(words(goal.get("goal"), empty="").capitalize(), _goal(goal)) for goal in goals]
    return [(label, text) for label, text in rows if text]


def _goal(goal: dict[str, Any]) -> str:
    """'solo (shared-prefix), 55.7 ms; then parallel (threads), 89.7 ms'."""
    best, second = (
        ", ".join(words(goal.get(name), empty="") for name in names)
        for names in (("arm", "figure"), ("runner_up", "runner_up_figure"))
    )
    return f"{best}; then {second}" if goal.get("runner_up") else best


def constraints(run: Run) -> str:
    """What the recommendation had to keep, from the parameters of 07_verdict."""
    given = run.params | dict(run.parts.get("07_verdict", {}).get("params") or {})
    asked = []
    if given.get("max_p95_s"):
        asked.append(f"95 % of requests within {as_seconds(given['max_p95_s'])}")
    if given.get("min_margin_bytes"):
        asked.append(f"at least {as_bytes(given['min_margin_bytes'])} free")
    if float(given.get("max_wer") or 1.0) < 1:
        asked.append(f"a word error rate of at most {wording.percent(given['max_wer'])}")
    return ", ".join(asked) or "nothing (max_p95_s, min_margin_bytes and max_wer were not set)"


def missing(run: Run) -> list[str]:
    """What this run lacks, in words. All that can be read must have been read before."""
    lacks = []
    for word, statuses in {
        "without a result": ("not run", "running"),
        "that failed": ("failed", "crashed"),
    }.items():
        names = [name for name in NOTEBOOKS if outcome(run, name)[0] in statuses]
        if names:
            lacks.append(f"Notebooks {word}: {', '.join(names)}.")
    if not run.manifest:
        lacks.append(
            "The run has no manifest of its own: its notebooks were run one by one."
            if run.parts
            else "The run has no manifest: nothing says on which machine and with what it ran."
        )
    version = run.origin("measurement_version")
    if not is_missing(version) and version != MEASUREMENT_VERSION:
        lacks.append(
            f"It was measured by version {words(version)} of the method, this program's is "
            f"{MEASUREMENT_VERSION}: its numbers stand as they were taken, and are not to be "
            "compared with newer ones."
        )
    if not run.verdict:
        lacks.append("There is no verdict: 07_verdict did not finish, so nothing is recommended.")
    empty = [name for name in ("cases", "trials", "claims") if run.tables[name].empty]
    lacks += [f"The table {name} has no rows." for name in empty]
    traces = [name for name in ("samples", "spans") if run.tables[name].empty]
    if not has_clock(run.cases):
        lacks.append(f"There are no times and nothing is shown over time: {NO_TIMES}.")
    elif traces and len(run.cases):
        lacks.append(f"Nothing is shown over time as far as it needs {' and '.join(traces)}.")
    return lacks + run.notes


# ----------------------------------------------------------------------------------------- cards


def cards(run: Run) -> list[tuple[str, str, str]]:
    """(label, figure, small print) of what a reader looks for first."""
    found = [_fit_card(run), _edge_card(run), _speed_card(run), _parity_card(run)]
    cases, claims = run.cases, run.tables["claims"]
    if len(cases):
        fine = int((cases["status"] == "ok").sum())
        note = "each in a process of its own"
        found.append(("Cases measured", f"{fine} of {len(cases)}", note))
    if len(claims):
        counts = claims["verdict"].value_counts()
        note = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        found.append(("Claims", wording.counted(len(claims), "claim"), note))
    return [card for card in found if card]


def _fit_card(run: Run) -> Any:
    fine = cases_of(run.cases, "beside")
    fine = fine[fine["status"] == "ok"]
    peaks = wording.highest_peak(fine)
    if not peaks.notna().any():
        return None
    top = fine.iloc[int(np.nanargmax(peaks.to_numpy()))]
    note = f"peaks at {as_bytes(float(peaks.max()))}"
    if not is_missing(top.get("margin_bytes")):
        note += f", {wording.spare_words(float(top['margin_bytes']))}"
    return ("Largest Whisper that ran beside Voxtral", words(top.get("whisper_size")), note)


def _edge_card(run: Run) -> Any:
    # a case that ran out of memory has a reading from before its failure, not a margin
    margins = wording.numbers(run.cases, "margin_bytes").where(run.cases["status"] == "ok")
    if not margins.notna().any():
        return None
    row = run.cases.loc[[margins.idxmin()]]
    label = wording.case_labels(row).iloc[0]
    capacity = as_bytes(wording.numbers(row, "capacity_bytes").iloc[0])
    return ("Smallest margin seen", format_bytes(float(margins.min())), f"{label}, of {capacity}")


def _speed_card(run: Run) -> Any:
    intervals = speed.arm_intervals(race_trials(run))
    if not intervals:
        return None
    best = min(intervals, key=lambda arm: intervals[arm].value)
    note = f"{best}, median of {intervals[best].n}, {interval_words(intervals[best])}"
    return ("Lowest latency per request", format_seconds(intervals[best].value), note)


def _parity_card(run: Run) -> Any:
    parity = wording.present(run.tables["trials"], "parity").astype(bool)
    if parity.empty:
        return None
    equal = int(parity.sum())
    figure = "all equal" if equal == len(parity) else f"{equal} of {len(parity)} equal"
    return ("Texts against each tenant alone", figure, f"{len(parity)} requests compared")


# --------------------------------------------------------------------------------------- helpers


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
