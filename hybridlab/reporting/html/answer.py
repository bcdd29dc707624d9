"""What stands behind page one: the recommendation, what the run lacks, the key figures."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from hybridlab import MEASUREMENT_VERSION
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.case_status import with_bytes
from hybridlab.analysis.differences import how_sure
from hybridlab.analysis.texts import endings
from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting import labels
from hybridlab.reporting.html.page import render
from hybridlab.reporting.html.run_info import outcome
from hybridlab.reporting.html.view_model import Run, bullets
from hybridlab.reporting.labels import is_missing, text, text_of
from hybridlab.reporting.rows import case_labels, present, race_standings
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import counted, format_percent


def recommendation(run: Run) -> dict[str, str]:
    """The verdict's recommendation by label; empty without one."""
    given = run.verdict.get("recommendation")
    said = text_of(run.verdict, "answer")
    if not isinstance(given, dict):
        return {"In one sentence": said} if said else {}
    facts = {
        "In one sentence": said,
        "Pair": text_of(given, "pair"),
        "Arm": labels.arm_of(given),
        "Why": text_of(given, "why"),
        "Runner-up": text_of(given, "runner_up"),
        "Why not the runner-up": text_of(given, "why_not"),
    }
    if isinstance(given.get("selection_instability"), float):
        facts["How firm"] = (
            f"another way wins in {format_percent(given['selection_instability'])} of draws of the "
            f"same {'rounds' if 'alone' in given else 'trials'}"
        )
    facts["Without a Whisper"] = text_of(given, "alone")
    facts["Barred"] = "; ".join(given.get("barred") or [])
    facts["It had to keep"] = constraints(run)
    goals = [goal for goal in given.get("goals") or [] if isinstance(goal, dict)]
    facts |= {text_of(goal, "goal").capitalize(): _goal(goal) for goal in goals}
    return {label: words for label, words in facts.items() if words}


def _goal(goal: dict[str, Any]) -> str:
    """'parallel/threads, 89.7 ms, beyond all others; then parallel/processes, 94.1 ms'."""
    best, second = (
        ", ".join(filter(None, (text_of(goal, name) for name in names)))
        for names in (("arm", "figure", "how_sure"), ("runner_up", "runner_up_figure"))
    )
    tie = text_of(goal, "how_sure").startswith("a tie")  # a tie has no second
    return f"{best}; then {second}" if goal.get("runner_up") and not tie else best


def constraints(run: Run) -> str:
    """What the recommendation had to keep, from the parameters of 07_verdict."""
    given = run.params | dict(run.parts.get("07_verdict", {}).get("params") or {})
    asked = []
    if given.get("max_p95_s"):
        asked.append(f"95 % of requests within {labels.seconds(given['max_p95_s'])}")
    if given.get("min_margin_bytes"):
        asked.append(f"at least {labels.n_bytes(given['min_margin_bytes'])} free")
    if float(given.get("max_wer") or 1.0) < 1:
        asked.append(f"a word error rate of at most {labels.percent(given['max_wer'])}")
    return ", ".join(asked) or "nothing (max_p95_s, min_margin_bytes and max_wer were not set)"


def missing_block(run: Run) -> Markup | str:
    """`missing`, as a panel."""
    lacks = missing(run)
    return Markup('<div class="panel warn">{}</div>').format(bullets(lacks)) if lacks else ""


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
            f"It was measured by version {text(version)} of the method, this program's is "
            f"{MEASUREMENT_VERSION}: its numbers stand as they were taken, and are not to be "
            "compared with newer ones."
        )
    if words := endings(run.trials):
        lacks.append(words)
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

#: Label, figure and small print.
Card = tuple[str, str, str]


def cards_block(run: Run) -> Markup | str:
    """`cards`, side by side."""
    found = cards(run)
    return render("cards.html.j2", cards=found) if found else ""


def cards(run: Run) -> list[Card]:
    """What a reader looks for first."""
    found = [_margin_card(run), _latency_card(run), _parity_card(run)]
    cases, claims = run.cases, run.tables["claims"]
    if len(cases):
        fine = int((cases["status"] == "ok").sum())
        note = "each in a process of its own"
        found.append(("Cases measured", f"{fine} of {len(cases)}", note))
    if len(claims):
        counts = claims["verdict"].value_counts()
        note = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        found.append(("Claims", counted(len(claims), "claim"), note))
    return [card for card in found if card]


def _margin_card(run: Run) -> Card | None:
    # a case that ran out of memory has a reading from before its failure, not a margin
    known = with_bytes(run.cases)  # inside a limit the margin is that limit's
    margins = numbers(known[~known["memory_limited"].eq(True)], "margin_bytes")
    if not margins.notna().any():
        return None
    row = run.cases.loc[[margins.idxmin()]]
    capacity = labels.n_bytes(numbers(row, "capacity_bytes").iloc[0])
    note = f"{case_labels(row).iloc[0]}, of {capacity}"
    return ("Smallest margin seen", labels.n_bytes(margins.min()), note)


def _latency_card(run: Run) -> Card | None:
    arms = race_standings(run.cases, run.trials)
    if not arms:
        return None
    best = arms[0]
    shown = labels.bracketed(best.latency_s, labels.seconds)
    note = f"{best.arm}, {counted(best.n, 'round')}; {how_sure(best, arms, 'latency')}"
    return ("Lowest latency per request", shown, note)


def _parity_card(run: Run) -> Card | None:
    matches = present(run.trials, "output_matches_reference").astype(bool)
    if matches.empty:
        return None
    equal = "all" if matches.all() else f"{matches.sum()} of {len(matches)}"
    note = f"{len(matches)} requests compared"
    return ("Texts against each model alone", f"{equal} equal", note)
