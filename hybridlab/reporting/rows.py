"""Reading tables: columns that may be missing, the trials that count, the cases that are shown."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.reporting.labels import EMPTY, arm_name, case_name
from hybridlab.reporting.ordering import ordered


def present(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The values of a column that are there; empty where the column itself is not."""
    if column not in table.columns:
        return pd.Series(dtype=object)
    values = table[column].dropna()
    return values[values.astype(str) != ""]


def filled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as people read them: a dash where nothing is known."""
    return table.astype(object).where(table.notna(), EMPTY)


# ---------------------------------------------------------------------------------------- trials


def is_first(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials are the first request of their case."""
    return trials["is_first_request"].fillna(False).astype(bool)


def arms_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The timed trials that compare strategies (the race where there is one), with a column
    `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    race = trials[trials["experiment"] == "strategy_comparison"]
    return _with_arm(race if len(race) else trials, timed=True)


def race_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of the races without first requests, with a column `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    return _with_arm(
        trials[(trials["experiment"] == "strategy_comparison") & ~is_first(trials)], timed=False
    )


def _with_arm(trials: pd.DataFrame, *, timed: bool) -> pd.DataFrame:
    found = trials.assign(latency_s=numbers(trials, "latency_s"))
    if timed:
        found = found[found["latency_s"].notna()]
    pairs = zip(found["strategy"].fillna(""), found["variant"].fillna(""), strict=True)
    return found.assign(arm=pd.Series([arm_name(*p) for p in pairs], index=found.index, dtype=str))


def arm_intervals(trials: pd.DataFrame) -> dict[str, Interval]:
    """Median latency in seconds with its interval per arm, first requests left out."""
    later = trials[~is_first(trials)]
    return {
        str(arm): bootstrap_interval(own["latency_s"])
        for arm, own in later.groupby("arm", sort=False)
    }


# ----------------------------------------------------------------------------------------- cases


def cases_of(cases: pd.DataFrame, *experiments: str) -> pd.DataFrame:
    """The cases of these experiments."""
    return cases[cases["experiment"].isin(experiments)]


def case_labels(cases: pd.DataFrame) -> pd.Series[str]:
    """What tells the cases apart, in few words; what all cases share is left out."""
    varying = {
        "co_residency": _varying(cases, "co_residency", "asr_backend", "asr_dtype"),
        "strategy_comparison": _varying(cases, "strategy_comparison", "asr_model"),
    }
    names = [
        case_name(row, varying=varying.get(str(row["experiment"]), ()))
        for _, row in cases.iterrows()
    ]
    return pd.Series(names, index=cases.index, dtype=str)


def _varying(cases: pd.DataFrame, experiment: str, *columns: str) -> list[str]:
    own = cases_of(cases, experiment)
    return [column for column in columns if present(own, column).nunique() > 1]


def highest_peak(cases: pd.DataFrame) -> pd.Series[float]:
    """The higher of load peak and request peak, in bytes."""
    peaks = [numbers(cases, f"{moment}_bytes") for moment in ("load_peak", "request_peak")]
    return pd.concat(peaks, axis=1).max(axis=1)


def worst_per_label(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per label, by strategy and size: of repeated cases the one with the highest peak, a
    measured one before one that was not."""
    labelled = cases.assign(label=case_labels(cases), peak=highest_peak(cases))
    ranked = labelled.sort_values("peak", ascending=False, na_position="last", kind="stable")
    return ordered(labelled.loc[ranked.drop_duplicates("label").index.sort_values()])


def evidence_of(rows: pd.DataFrame) -> str:
    """What the rows are: 'measured' (also where they do not say), 'simulated', or both."""
    found = sorted({str(value) for value in present(rows, "evidence")})
    return " and ".join(found) or "measured"
