"""One page that compares runs: what differs between them, and what changed beyond noise.

A figure counts as changed only where the 95 % interval of its ratio lies wholly outside the noise
around 1. The noise is measured: how far the same arm's own cases lie apart within one run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from hybridlab.analysis.arms import LEAST_TRIALS, numbers, race_cases, timed_trials
from hybridlab.analysis.stats import ratio_interval
from hybridlab.errors import ParameterError
from hybridlab.reporting import labels
from hybridlab.reporting.html import run_info, sections
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.view_model import Run, Table, badge, table
from hybridlab.reporting.labels import EMPTY, is_missing, text
from hybridlab.reporting.rows import case_labels, cases_of, present

MOST_RUNS = len(ascii_uppercase)
#: The least noise, and that of times where nothing was measured twice.
LEAST_NOISE, UNKNOWN_NOISE = 0.02, 0.1
RULE = (
    "A figure is marked as changed only where the 95 % interval of its ratio to run A lies wholly "
    "outside the noise around 1: how far the same arm's own cases lie apart within one run, at "
    f"least {LEAST_NOISE:.0%}, and {UNKNOWN_NOISE:.0%} for times that were measured in "
    f"one case only. A latency needs {LEAST_TRIALS} requests in each run."
)


@dataclass(frozen=True)
class Measure:
    """One quantity of one run: all values that count, and one value for each case; seconds,
    requests per second or bytes."""

    unit: str
    values: Sequence[float]
    by_case: Sequence[float]


def build_comparison(run_dirs: Sequence[Path], output: Path) -> Path:
    """Write a page that compares runs with the first of them, which is A.

    `RunFolderError` where a folder holds no run, `ParameterError` for fewer than two runs.
    """
    folders = [Path(folder).absolute() for folder in run_dirs]
    if not 2 <= len(set(folders)) == len(folders) <= MOST_RUNS:
        raise ParameterError(f"name from 2 to {MOST_RUNS} different run folders to compare")
    runs = dict(zip(ascii_uppercase, (Run(folder) for folder in folders), strict=False))
    measured, claims = measures_table(runs), claims_table(runs)
    content = {
        "runs": runs_table(runs),
        "answer": _answer(measured, claims),
        "rule": RULE,
        "refusals": [f"{letter} is not compared with A: {why}." for letter, why in _refused(runs)],
        "measures": measured,
        "claims": claims,
        "lacks": {f"{letter}: {run.name}": sections.missing(run) for letter, run in runs.items()},
    }
    return write_page(output.absolute(), "comparison.html.j2", content)


# ----------------------------------------------------------------------------------- surroundings


def runs_table(runs: dict[str, Run]) -> Table:
    """What each run is, and what of its machine, versions and parameters is not the same in all."""
    told = {letter: _surroundings(run) for letter, run in runs.items()}
    names = dict.fromkeys(name for facts in told.values() for name in facts)
    rows = [
        {"What": name, **{letter: facts.get(name, EMPTY) for letter, facts in told.items()}}
        for name in names
    ]
    return table(
        [r for r in rows if r["What"] in _ALWAYS or len({r[letter] for letter in runs}) > 1]
    )


_ALWAYS = ("name", "device", "preset", "commit", "method", "started", "status")


def _surroundings(run: Run) -> dict[str, str]:
    identity = {
        "name": run.name,
        "device": run_info.device_words(run),
        "preset": text(run.manifest.get("preset")),
        "commit": text(run.origin("git_commit")),
        "method": text(run.origin("measurement_version")),
        "started": run_info.moment(run.origin("started")),
        "status": text(run.manifest.get("status"), empty="no manifest"),
    }
    groups = {
        "machine": run.origin("machine"),
        "version of": run.origin("versions"),
        "parameter": run_info.default_params() | run.params,
    }
    return identity | {
        f"{group} {name}": text(value, empty="(empty)")
        for group, values in groups.items()
        for name, value in dict(values or {}).items()
        if name not in run_info.OF_THE_RUN
    }


def _refused(runs: dict[str, Run]) -> list[tuple[str, str]]:
    """Runs that must not be compared with the first one, and why."""
    (_, first), *others = runs.items()
    found = []
    for letter, run in others:
        both = (first, run)
        versions = [one.origin("measurement_version") for one in both]
        devices = [", ".join(sorted(set(map(str, present(r.cases, "device"))))) for r in both]
        limited = [present(one.cases, "memory_limited").astype(bool).any() for one in both]
        if any(map(is_missing, versions)):
            found.append((letter, "a run does not say by which version of the method it ran"))
        elif versions[0] != versions[1]:
            found.append((letter, f"measured by versions {' and '.join(map(text, versions))}"))
        elif devices[0].split(":")[0] != devices[1].split(":")[0]:
            found.append((letter, f"{' and '.join(devices)} count bytes in different ways"))
        elif limited[0] != limited[1]:
            found.append((letter, "one of them ran inside a memory limit, where times mean little"))
    return found


# --------------------------------------------------------------------------------------- figures


def measures(run: Run) -> dict[str, Measure]:
    """Latency, throughput and peak of each arm whose texts held, and the bytes of each moment of
    what was resident, from cases that ended well."""
    cases, found = run.cases, {}
    good = race_cases(cases, run.trials) if len(cases) else cases
    served = timed_trials(good, run.trials) if len(good) else run.trials
    for keys, own in good.groupby(["strategy", "variant"], sort=True) if len(good) else ():
        arm = labels.arm_name(*map(str, keys))
        mine = served[served["case_id"].isin(own["case_id"])]
        medians = mine.groupby(["notebook", "case_id"])["latency_s"].median().to_list()
        found[f"latency of {arm}"] = Measure("seconds", mine["latency_s"].to_list(), medians)
        for name, unit, column in (
            ("throughput", "requests", "throughput_rps"),
            ("peak", "bytes", "peak_bytes"),
        ):
            values = numbers(own, column).dropna().to_list()
            found[f"{name} of {arm}"] = Measure(unit, values, values)
    beside = cases_of(cases, "baseline", "co_residency")
    beside = beside[beside["status"] == "ok"]
    for label, own in beside.groupby(case_labels(beside), sort=False) if len(beside) else ():
        for moment, name in labels.MOMENTS.items():
            values = numbers(own, f"{moment}_bytes").dropna().to_list()
            found[f"{name} of {label}"] = Measure("bytes", values, values)
    return found


def measures_table(runs: dict[str, Run]) -> Table:
    """Every quantity in every run, its ratio to the first one, and whether it changed."""
    known = {letter: measures(run) for letter, run in runs.items()}
    refused = {letter for letter, _ in _refused(runs)}
    first, *others = runs
    rows = []
    for name in dict.fromkeys(name for found in known.values() for name in found):
        own = {letter: known[letter].get(name) for letter in runs}
        noise = noise_of([one.by_case for one in own.values() if one], unit=_unit(own))
        row: dict[str, Any] = {"What": name, **{r: _shown(one) for r, one in own.items()}}
        for letter in others:
            ratio, word = EMPTY, "not compared"
            if letter not in refused:
                ratio, word = change(own[first], own[letter], noise=noise)
            row |= {f"{letter} over A": ratio, f"{letter}: beyond noise?": badge(word)}
        rows.append(row)
    return table(rows, empty="Neither arms nor sizes were measured in any of these runs.")


def _unit(own: dict[str, Measure | None]) -> str:
    return next(measure.unit for measure in own.values() if measure)


def change(before: Measure | None, after: Measure | None, *, noise: float) -> tuple[str, str]:
    """The ratio in words, and 'changed' where its interval lies outside `noise` (0.02 is 2 %).

    One value on either side has no interval: the ratio itself then stands for both ends."""
    if not (before and after and before.values and after.values):
        return EMPTY, "not compared"
    ratio = ratio_interval(before.values, after.values)
    low, high = (ratio.value if math.isnan(bound) else bound for bound in (ratio.low, ratio.high))
    words = f"× {ratio.value:.2f}" + (f" ({low:.2f} to {high:.2f})" if ratio.n > 1 else "")
    if before.unit == "seconds" and ratio.n < LEAST_TRIALS:
        return words, f"n = {ratio.n}: too few to tell"
    outside = low > 1 + noise or high < 1 / (1 + noise)
    return words, "changed" if outside else "no change"


def noise_of(by_case: Iterable[Sequence[float]], *, unit: str) -> float:
    """How far apart an arm's own cases lie within a run, the largest over the smallest less 1;
    never below `LEAST_NOISE`."""
    spreads = [max(own) / min(own) - 1 for own in by_case if len(own) > 1 and min(own) > 0]
    unknown = 0.0 if unit == "bytes" else UNKNOWN_NOISE
    return max(LEAST_NOISE, max(spreads, default=unknown))


def _shown(measure: Measure | None) -> str:
    """The median, for bytes the highest value, and how many were counted."""
    if measure is None or not measure.values:
        return EMPTY
    if measure.unit == "bytes":
        return labels.n_bytes(max(measure.values))
    middle = sorted(measure.values)[len(measure.values) // 2]
    words = labels.seconds(middle) if measure.unit == "seconds" else labels.per_minute(middle)
    return f"{words}, n = {len(measure.values)}"


def claims_table(runs: dict[str, Run]) -> Table:
    """Claims whose verdict is not the same in every run that judged them."""
    verdicts: dict[str, dict[str, str]] = {}
    for letter, run in runs.items():
        for _, row in run.tables["claims"].iterrows():
            sentence = text(row.get("sentence"), empty=text(row["claim"]))
            verdicts.setdefault(sentence, {})[letter] = text(row["verdict"])
    return table(
        [
            {
                "Claim": sentence,
                **{letter: badge(told[letter]) if letter in told else EMPTY for letter in runs},
            }
            for sentence, told in verdicts.items()
            if len(set(told.values())) > 1
        ],
        empty="Every claim that more than one run judged has the same verdict."
        if verdicts
        else "No claim was judged in any of these runs.",
    )


def _answer(measured: Table, claims: Table) -> str:
    """The comparison in a sentence."""
    changed = [str(row[0]) for row in measured.rows if badge("changed") in row]
    compared = changed or any(badge("no change") in row for row in measured.rows)
    what = "Nothing changed beyond noise" if compared else "Nothing in these runs can be compared"
    if changed:
        what = f"Beyond noise changed: {', '.join(changed)}"
    counted = labels.counted(len(claims.rows), "claim") if claims.rows else "no claim"
    return f"{what}; {counted} with another verdict."
