"""One page that compares runs: what differs between them, and what changed beyond noise.

A figure counts as changed only where the 95 % interval of its ratio lies wholly outside the noise
around 1. The noise is measured: how far the same arm's own cases lie apart within one run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import LEAST_TRIALS, numbers, race_cases, timed_trials
from hybridlab.analysis.stats import ratio_interval
from hybridlab.errors import ParameterError
from hybridlab.reporting import labels
from hybridlab.reporting.html import run_info, sections
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.view_model import Run, Table, badge, table
from hybridlab.reporting.labels import EMPTY, is_missing, text
from hybridlab.reporting.rows import case_labels, cases_of, measured, present

MOST_RUNS = len(ascii_uppercase)
#: The least noise, and that of times where nothing was measured twice.
LEAST_NOISE, UNKNOWN_NOISE = 0.02, 0.1
RULE = (
    "A figure is marked as changed only where the 95 % interval of its ratio to run A lies wholly "
    "outside the noise around 1: how far the same arm's own cases lie apart within one run, at "
    f"least {LEAST_NOISE:.0%}, and {UNKNOWN_NOISE:.0%} for times that were measured in "
    f"one case only. A latency needs {LEAST_TRIALS} requests in each run."
)
CHANGED, SAME, NOT_COMPARED = "changed", "no change", "not compared"
Runs = Mapping[str, Run]


def build_comparison(run_dirs: Sequence[Path], output: Path) -> Path:
    """Write a page that compares runs with the first of them, which is A.

    `RunFolderError` where a folder holds no run, `ParameterError` for fewer than two runs.
    """
    folders = [Path(folder).absolute() for folder in run_dirs]
    if not 2 <= len(set(folders)) == len(folders) <= MOST_RUNS:
        raise ParameterError(f"name from 2 to {MOST_RUNS} different run folders to compare")
    runs = dict(zip(ascii_uppercase, (Run(folder) for folder in folders), strict=False))
    refused = {r: why for r, run in runs.items() if (why := _refusal(runs["A"], run))}
    changes, claims = changes_of(runs, refused), claims_table(runs)
    content = {
        "runs": runs_table(runs),
        "answer": _answer(changes, claims),
        "rule": RULE,
        "refusals": [f"{letter} is not compared with A: {why}." for letter, why in refused.items()],
        "measures": _measures_table(changes),
        "claims": claims,
        "lacks": {f"{letter}: {run.name}": sections.missing(run) for letter, run in runs.items()},
    }
    return write_page(output.absolute(), "comparison.html.j2", content)


# ----------------------------------------------------------------------------------- surroundings


def runs_table(runs: Runs) -> Table:
    """What each run is, and what of its machine, versions and parameters is not the same in all."""
    identities = {letter: _identity(run) for letter, run in runs.items()}
    settings = pd.DataFrame({r: _settings(run) for r, run in runs.items()}, dtype=object)
    differing = settings.fillna(EMPTY)[settings.fillna(EMPTY).nunique(axis=1) > 1]
    shown = pd.concat([pd.DataFrame(identities, dtype=object), differing])
    return table(shown.rename_axis("What").reset_index().to_dict("records"))


def _identity(run: Run) -> dict[str, str]:
    return {
        "name": run.name,
        "device": run_info.device_words(run),
        "preset": text(run.manifest.get("preset")),
        "commit": text(run.origin("git_commit")),
        "method": text(run.origin("measurement_version")),
        "started": run_info.moment(run.origin("started")),
        "status": text(run.manifest.get("status"), empty="no manifest"),
    }


def _settings(run: Run) -> dict[str, str]:
    groups = {
        "machine": run.origin("machine"),
        "version of": run.origin("versions"),
        "parameter": run_info.default_params() | run.params,
    }
    return {
        f"{group} {name}": text(value, empty="(empty)")
        for group, values in groups.items()
        for name, value in dict(values or {}).items()
        if name not in run_info.OF_THE_RUN
    }


def _refusal(first: Run, run: Run) -> str:
    """Why a run must not be compared with the first one; '' where it may."""
    both = (first, run)
    versions = [one.origin("measurement_version") for one in both]
    devices = [", ".join(sorted(set(map(str, present(one.cases, "device"))))) for one in both]
    limited = [present(one.cases, "memory_limited").astype(bool).any() for one in both]
    if any(map(is_missing, versions)):
        return "a run does not say by which version of the method it ran"
    if versions[0] != versions[1]:
        return f"measured by versions {' and '.join(map(text, versions))}"
    if devices[0].split(":")[0] != devices[1].split(":")[0]:
        return f"{' and '.join(devices)} count bytes in different ways"
    if limited[0] != limited[1]:
        return "one of them ran inside a memory limit, where times mean little"
    return ""


# --------------------------------------------------------------------------------------- figures


def measures(run: Run) -> pd.DataFrame:
    """A row per value, `what, column, notebook, case_id, value`, of cases that ended well: latency
    (s), throughput (requests/s) and peak (bytes) of each arm whose texts held, and the bytes of
    each moment of what was resident."""
    good = race_cases(run.cases, run.trials)
    good = good.assign(whose=[labels.arm_of(row) for _, row in good.iterrows()])
    served = timed_trials(good, run.trials).merge(good[["notebook", "case_id", "whose"]])
    beside = measured(cases_of(run.cases, "baseline", "co_residency"))
    beside = beside.assign(whose=case_labels(beside))
    moments = [(beside, name, f"{moment}_bytes") for moment, name in labels.MOMENTS.items()]
    found = [
        rows[["notebook", "case_id"]].assign(
            what=[f"{name} of {whose}" for whose in rows["whose"]],
            column=column,
            value=numbers(rows, column),
        )
        for rows, name, column in (
            (served, "latency", "latency_s"),
            (good, "throughput", "throughput_rps"),
            (good, "peak", "peak_bytes"),
            *moments,
        )
    ]
    return pd.concat(found).dropna(subset=["value"])


def changes_of(runs: Runs, refused: Mapping[str, str]) -> list[dict[str, str]]:
    """Every quantity in every run in words, its ratio to the first one, and whether it changed."""
    known = pd.concat(measures(run).assign(run=letter) for letter, run in runs.items())
    rows = []
    for (what, column), own in known.groupby(["what", "column"], sort=False):
        values = {letter: list(own.loc[own["run"] == letter, "value"]) for letter in runs}
        noise = noise_of(own, str(column))
        row = {"What": str(what)} | {r: _words(found, str(column)) for r, found in values.items()}
        for letter in list(runs)[1:]:
            ratio, word = change(values["A"], values[letter], str(column), noise=noise)
            if letter in refused:
                ratio, word = EMPTY, NOT_COMPARED
            row |= {f"{letter} over A": ratio, f"{letter}: beyond noise?": word}
        rows.append(row)
    return rows


def _words(values: Sequence[float], column: str) -> str:
    """The median, for bytes the highest value, and how many were counted."""
    if not values:
        return EMPTY
    if column.endswith("_bytes"):
        return labels.n_bytes(max(values))
    shown = labels.seconds if column == "latency_s" else labels.per_minute
    return f"{shown(float(np.median(values)))}, n = {len(values)}"


def change(
    before: Sequence[float], after: Sequence[float], column: str, *, noise: float
) -> tuple[str, str]:
    """The ratio in words, and 'changed' where its interval lies outside `noise` (0.02 is 2 %).

    One value on either side has no interval: the ratio itself then stands for both ends."""
    if not (before and after):
        return EMPTY, NOT_COMPARED
    ratio = ratio_interval(before, after)
    low, high = (ratio.value if math.isnan(bound) else bound for bound in (ratio.low, ratio.high))
    words = f"× {ratio.value:.2f}" + (f" ({low:.2f} to {high:.2f})" if ratio.n > 1 else "")
    if column == "latency_s" and ratio.n < LEAST_TRIALS:
        return words, f"n = {ratio.n}: too few to tell"
    outside = low > 1 + noise or high < 1 / (1 + noise)
    return words, CHANGED if outside else SAME


def noise_of(values: pd.DataFrame, column: str) -> float:
    """How far apart an arm's own cases lie within a run, the largest over the smallest less 1;
    never below `LEAST_NOISE`. `values` as `measures` has them, with the `run`."""
    by_case = values.groupby(["run", "notebook", "case_id"])["value"].median()
    by_run = by_case[by_case > 0].groupby("run").agg(["size", "min", "max"])
    several = by_run[by_run["size"] > 1]
    spread = (several["max"] / several["min"] - 1).max()
    unknown = 0.0 if column.endswith("_bytes") else UNKNOWN_NOISE
    return max(LEAST_NOISE, float(spread) if len(several) else unknown)


def _measures_table(changes: list[dict[str, str]]) -> Table:
    rows = [
        {name: badge(cell) if name.endswith("noise?") else cell for name, cell in row.items()}
        for row in changes
    ]
    return table(rows, empty="Neither arms nor sizes were measured in any of these runs.")


def claims_table(runs: Runs) -> Table:
    """Claims whose verdict is not the same in every run that judged them."""
    verdicts = pd.DataFrame({letter: _verdicts(run) for letter, run in runs.items()})
    differing = verdicts[verdicts.nunique(axis=1) > 1]
    rows = [
        {"Claim": sentence} | {r: EMPTY if is_missing(v) else badge(v) for r, v in verdict.items()}
        for sentence, verdict in differing.to_dict("index").items()
    ]
    same = "Every claim that more than one run judged has the same verdict."
    return table(rows, empty=same if len(verdicts) else "No claim was judged in any of these runs.")


def _verdicts(run: Run) -> dict[str, str]:
    return {
        text(row["sentence"], empty=text(row["claim"])): text(row["verdict"])
        for _, row in run.tables["claims"].iterrows()
    }


def _answer(changes: list[dict[str, str]], claims: Table) -> str:
    """The comparison in a sentence."""
    changed = [row["What"] for row in changes if CHANGED in row.values()]
    compared = any({CHANGED, SAME} & set(row.values()) for row in changes)
    what = "Nothing changed beyond noise" if compared else "Nothing in these runs can be compared"
    if changed:
        what = f"Beyond noise changed: {', '.join(changed)}"
    counted = labels.counted(len(claims.rows), "claim") if claims.rows else "no claim"
    return f"{what}; {counted} with another verdict."
