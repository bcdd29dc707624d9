"""One page that compares runs: what differs between them, and what changed beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import LEAST_ROUNDS, numbers, race_cases, timed_trials
from hybridlab.analysis.stats import Estimate, holm, welch
from hybridlab.errors import ParameterError
from hybridlab.reporting import labels
from hybridlab.reporting.html import run_info
from hybridlab.reporting.html.answer import missing
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.view_model import Run, badge, bullets, table
from hybridlab.reporting.labels import EMPTY, text
from hybridlab.reporting.rows import case_labels, cases_of, measured, present
from hybridlab.units import counted, format_percent

#: Of ratios: what does not count as a change.
NOISE = 0.02
RULE = (
    "A figure is marked as changed only where its ratio to run A, from the medians of the cases, "
    f"lies outside {format_percent(NOISE)} around 1 by more than chance gives among all figures "
    f"of that run (Welch's t, Holm). Below {LEAST_ROUNDS} cases in both runs nothing is said."
)
CHANGED, SAME, FEW = "changed", "no change", "too few cases"
Runs = Mapping[str, Run]


def build_comparison(run_dirs: Sequence[Path], output: Path) -> Path:
    """Write a page that compares runs with the first of them, which is A.

    `RunFolderError` where a folder holds no run, `ParameterError` for fewer than two runs.
    """
    folders = [Path(folder).absolute() for folder in run_dirs]
    if not 2 <= len(set(folders)) == len(folders) <= len(ascii_uppercase):
        raise ParameterError(f"name from 2 to {len(ascii_uppercase)} different run folders")
    runs = dict(zip(ascii_uppercase, map(Run, folders), strict=False))
    refused = {letter: why for letter, run in runs.items() if (why := _refusal(runs["A"], run))}
    changes, claims = changes_of(runs, refused), claims_of(runs)
    refusals = [f"{letter} is not compared with A: {why}." for letter, why in refused.items()]
    lacks = {f"{r} lacks": " ".join(words) for r, run in runs.items() if (words := missing(run))}
    blocks = {
        "The runs, and what differs": [table(differences(runs)), lacks],
        "The rule": bullets([RULE, *refusals]),
        "Latency, throughput and memory": table(changes),
        "Claims with another verdict": table(claims, empty="There are none."),
    }
    seen = {row["What"]: {badge(CHANGED), badge(SAME)} & {*row.values()} for row in changes}
    answer = "Nothing changed beyond noise" if any(seen.values()) else "Nothing can be compared"
    if changed := [what for what, found in seen.items() if badge(CHANGED) in found]:
        answer = f"Beyond noise changed: {', '.join(changed)}"
    return write_page(
        output.absolute(),
        "comparison.html.j2",
        sections=[({"name": t.split()[-1], "title": t}, b) for t, b in blocks.items()],
        count=len(runs),
        answer=f"{answer}; {counted(len(claims), 'claim')} with another verdict.",
    )


def differences(runs: Runs) -> list[dict[Any, Any]]:
    """Names, and what of machine, versions and parameters is not the same in all runs."""
    told = {letter: {"Run": run.name, **run_info.facts_of(run)} for letter, run in runs.items()}
    facts = pd.DataFrame(told, dtype=object).fillna(EMPTY)
    differing = (facts.nunique(axis=1) > 1) | facts.index.isin(["Run", "Device"])
    return facts[differing].rename_axis("What").reset_index().to_dict("records")


def _refusal(first: Run, run: Run) -> str:
    """Why a run must not be compared with the first one; '' where it may."""
    versions = [text(one.origin("measurement_version")) for one in (first, run)]
    kinds = [set(present(one.cases, "device").str.split(":").str[0]) for one in (first, run)]
    limited = [present(one.cases, "memory_limited").astype(bool).any() for one in (first, run)]
    if versions[0] != versions[1] or EMPTY in versions:
        return f"measured by versions {' and '.join(versions)} of the method"
    if kinds[0] != kinds[1]:
        return "devices of these kinds count bytes in different ways"
    return "one of them ran inside a memory limit" if limited[0] != limited[1] else ""


def measures(run: Run) -> pd.Series[float]:
    """By `what`, `column` and case, of cases that ended well: median latency (s), requests/s and
    peak (bytes) of each arm whose texts held, and the bytes of each moment beside Voxtral."""
    key = ["notebook", "case_id"]
    good = race_cases(run.cases, run.trials)
    good = good.assign(whose=[labels.arm_of(row) for _, row in good.iterrows()])
    served = timed_trials(good, run.trials).merge(good[[*key, "whose"]])
    beside = measured(cases_of(run.cases, "baseline", "co_residency"))
    beside = beside.assign(whose=case_labels(beside))
    sources = [(served, "latency", "latency_s"), (good, "requests/s", "throughput_rps")]
    sources += [(good, "peak", "peak_bytes")]
    sources += [(beside, name, f"{moment}_bytes") for moment, name in labels.MOMENTS.items()]
    found = [
        rows[key].assign(what=name, column=column, value=numbers(rows, column), whose=rows["whose"])
        for rows, name, column in sources
    ]
    known = pd.concat(found).dropna(subset=["value"])
    known["what"] += " of " + known["whose"].astype(str)
    return known.groupby(["what", "column", *key], sort=False)["value"].median()


def changes_of(runs: Runs, refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every quantity in every run in words, its ratio to the first one, and whether it changed."""
    shown = {"latency_s": labels.seconds, "throughput_rps": labels.number}
    known = pd.concat({letter: measures(run) for letter, run in runs.items()}, names=["run"])
    values = {
        (str(what), str(column)): {
            letter: list(own[own.index.get_level_values("run") == letter]) for letter in runs
        }
        for (what, column), own in known.groupby(["what", "column"], sort=False)
    }
    rows = []
    for (what, column), cases in values.items():
        show = shown.get(column, labels.n_bytes)
        row = {"What": what}
        for letter, own in cases.items():
            row[letter] = f"{show(np.median(own) if own else None)}, n = {len(own)}"
        rows.append(row)
    for letter in list(runs)[1:]:
        compared = [(own["A"], [] if letter in refused else own[letter]) for own in values.values()]
        for row, (ratio, word) in zip(rows, changes(compared), strict=True):
            row |= {f"{letter} over A": ratio, f"{letter}: beyond noise?": badge(word)}
    return rows


def changes(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[tuple[str, str]]:
    """Of each figure's values before and after: their ratio in words, and 'changed' as `RULE` has
    it."""
    ratios = [welch(np.log(after), np.log(before)) for before, after in pairs]
    chances = {n: ratio.beyond(math.log1p(NOISE)) for n, ratio in enumerate(ratios)}
    held = holm({n: chance for n, chance in chances.items() if not math.isnan(ratios[n].error)})
    return [
        (_ratio_words(ratio), CHANGED if n in held else _unchanged(ratio))
        for n, ratio in enumerate(ratios)
    ]


def _ratio_words(ratio: Estimate) -> str:
    shown = ratio.interval().exponential()
    if math.isnan(shown.value):
        return EMPTY
    bounds = "" if math.isnan(shown.low) else f" ({shown.low:.2f} to {shown.high:.2f})"
    return f"× {shown.value:.2f}{bounds}"


def _unchanged(ratio: Estimate) -> str:
    if math.isnan(ratio.value):
        return "not compared"
    return FEW if math.isnan(ratio.error) else SAME


def claims_of(runs: Runs) -> list[dict[str, str]]:
    """Claims whose verdict is not the same in every run that judged them."""
    claims = pd.concat({letter: run.tables["claims"] for letter, run in runs.items()}, names=["r"])
    told = claims.assign(judged=claims["expected"].fillna(claims["claim"])).reset_index("r")
    verdicts = told.pivot(index="claim", columns="r", values="verdict")
    words = told.set_index("claim")["judged"].to_dict()
    differing = verdicts[verdicts.nunique(axis=1) > 1]
    return [
        {
            "Claim": str(words[claim]),
            **{str(letter): badge(text(word)) for letter, word in own.items()},
        }
        for claim, own in differing.to_dict("index").items()
    ]
