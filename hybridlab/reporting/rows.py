"""Tables as figures, findings and reports need them: complete columns, one order, the trials that
count, the cases that are shown."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from hybridlab import catalog
from hybridlab.analysis import arms
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.case_status import valid_times
from hybridlab.analysis.stats import Interval, student
from hybridlab.reporting.labels import EMPTY, arm_name, arm_of, case_name
from hybridlab.reporting.palette import STRATEGY_LOOK
from hybridlab.results.reader import has_clock
from hybridlab.results.schema import TABLES, columns
from hybridlab.simulation import NO_TIMES

P = ParamSpec("P")
R = TypeVar("R")

STRATEGIES = tuple(STRATEGY_LOOK)
SIZES = (*catalog.WHISPER_SIZES, *catalog.POCKET_SIZES)
#: The experiment whose arms take turns, and the arm that runs in each of them.
RACE = "strategy_comparison"
CONTROL = arm_name(*arms.CONTROL)


def complete(table: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with all columns of the table's schema; those that an older run lacks are empty, as
    numbers or as objects."""
    missing = {name: column for name, column in columns(table).items() if name not in rows}
    kinds = {name: float if {int, float} & {*c.types} else object for name, c in missing.items()}
    return rows.reindex(columns=[*rows.columns, *missing]).astype(kinds)


def complete_tables(function: Callable[P, R]) -> Callable[P, R]:
    """Complete every argument that is a table of a run, by the name of its parameter, and leave out
    the times of invalid cases where the table of cases is among them."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if name in TABLES and isinstance(value, pd.DataFrame):
                given.arguments[name] = complete(name, value)
        cases = given.arguments.get("cases")
        if isinstance(cases, pd.DataFrame):
            for name, value in given.arguments.items():
                if name in TABLES and isinstance(value, pd.DataFrame):
                    given.arguments[name] = valid_times(value, cases)
        return function(*given.args, **given.kwargs)

    return wrapper


def timed_table(function: Callable[P, pd.DataFrame]) -> Callable[P, pd.DataFrame]:
    """`complete_tables` for a table of times: of a simulated card it says why there are none."""
    inner = complete_tables(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        tables = [table for table in (*args, *kwargs.values()) if isinstance(table, pd.DataFrame)]
        if not all(map(has_clock, tables)):
            return pd.DataFrame({"no times": [NO_TIMES]})
        return inner(*args, **kwargs)

    return wrapper


def present(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The values of a column that are there; empty where the column itself is not."""
    if column not in table.columns:
        return pd.Series(dtype=object)
    values = table[column].dropna()
    return values[values.astype(str) != ""]


def filled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as people read them: a dash where nothing is known."""
    return table.astype(object).where(table.notna(), EMPTY)


def evidence_of(rows: pd.DataFrame) -> str:
    """What the rows are: 'measured' (also where they do not say), 'simulated', or both."""
    found = sorted({str(value) for value in present(rows, "evidence")})
    return " and ".join(found) or "measured"


# ----------------------------------------------------------------------------------------- order


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by experiment as it comes, then strategy, then size of Whisper; otherwise in order of
    appearance, which is that in which the parameters name the variants. What has no strategy or
    size comes first."""
    if rows.empty:
        return rows
    experiment = rows["experiment"] if "experiment" in rows else pd.Series(0, index=rows.index)
    keys = pd.DataFrame(
        {
            "experiment": pd.factorize(experiment)[0],
            "strategy": _ranks(rows, "strategy", STRATEGIES),
            "size": _ranks(rows, "asr_model", SIZES),
        }
    )
    return rows.iloc[keys.sort_values(["experiment", "strategy", "size"], kind="stable").index]


def _ranks(rows: pd.DataFrame, column: str, known: Sequence[str]) -> list[int]:
    """The place of each row's value among those that are known, -1 for all others."""
    values = rows[column] if column in rows else [None] * len(rows)
    return [known.index(value) if value in known else -1 for value in values]


def strategies_first(names: Sequence[str]) -> list[str]:
    """Arms such as 'sequential/plain' by strategy; those of one strategy as they come."""
    place = {name: number for number, name in enumerate(STRATEGIES)}
    return sorted(names, key=lambda name: place.get(name.split("/")[0], len(place)))


# ---------------------------------------------------------------------------------------- trials


def is_first(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials are the first request of their case."""
    return trials["is_first_request"].eq(True)


def arms_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The timed trials that compare strategies (the race where there is one), with a column
    `arm`."""
    race = trials[trials["experiment"] == RACE]
    found = _with_arm(race if len(race) else trials)
    return found[found["latency_s"].notna()]


def race_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of the races without first requests, with a column `arm`."""
    return _with_arm(trials[(trials["experiment"] == RACE) & ~is_first(trials)])


def _with_arm(trials: pd.DataFrame) -> pd.DataFrame:
    names = pd.Series([arm_of(row) for _, row in trials.iterrows()], index=trials.index, dtype=str)
    return trials.assign(latency_s=numbers(trials, "latency_s"), arm=names)


def arm_intervals(trials: pd.DataFrame) -> dict[str, Interval]:
    """The typical latency of a case in seconds with its interval per arm, first requests left
    out."""
    later = trials[~is_first(trials)]
    return {
        str(arm): case_interval(own, own["latency_s"])
        for arm, own in later.groupby("arm", sort=False)
    }


def case_interval(rows: pd.DataFrame, values: pd.Series[float]) -> Interval:
    """The mean of the cases' medians on a scale of ratios, with Student's interval; n counts
    cases."""
    keys = [rows[name] for name in ("notebook", "case_id") if name in rows]
    medians = values.astype(float).groupby(keys).median()
    return student(np.log(medians[medians > 0])).interval().exponential()


def race_standings(cases: pd.DataFrame, trials: pd.DataFrame) -> list[arms.ArmStats]:
    """The arms of a race that nothing bars and that have a latency to be held against a control's,
    fastest first; empty without a race or a clock."""
    if cases.empty or trials.empty:
        return []
    found = [arm for arm in arms.standings(cases, trials) if not arm.failed]
    known = [arm for arm in found if not math.isnan(arm.relative.value)]
    return sorted(known, key=lambda arm: (arm.relative.value, arm.arm))


def merged_bands(spans: pd.DataFrame, *, gap_s: float) -> dict[str, list[tuple[float, float]]]:
    """(start, width) in seconds per phase; bands nearer than `gap_s` to the one before join it."""
    bands: dict[str, list[tuple[float, float]]] = {}
    for phase, start, end in zip(spans["phase"], spans["start_s"], spans["end_s"], strict=True):
        known = bands.setdefault(str(phase), [])
        if known and start - sum(known[-1]) <= gap_s:
            known[-1] = (known[-1][0], max(end, sum(known[-1])) - known[-1][0])
        else:
            known.append((float(start), float(end - start)))
    return bands


# ----------------------------------------------------------------------------------------- cases


def cases_of(cases: pd.DataFrame, *experiments: str) -> pd.DataFrame:
    """The cases of these experiments."""
    return cases[cases["experiment"].isin(experiments)]


def measured(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that ended well."""
    return cases[cases["status"] == "ok"]


def case_labels(cases: pd.DataFrame) -> pd.Series[str]:
    """What tells the cases apart, in few words; what all cases share is left out."""
    varying = {
        "co_residency": _varying(cases, "co_residency", "asr_backend", "asr_dtype"),
        RACE: _varying(cases, RACE, "asr_model"),
    }
    names = [
        case_name(row, varying=varying.get(str(row["experiment"]), ()))
        for _, row in cases.iterrows()
    ]
    return pd.Series(names, index=cases.index, dtype=str)


def _varying(cases: pd.DataFrame, experiment: str, *columns: str) -> list[str]:
    own = cases_of(cases, experiment)
    return [column for column in columns if present(own, column).nunique() > 1]


def worst_per_label(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per label, by strategy and size: of repeated cases the one with the highest peak, a
    measured one before one that was not."""
    labelled = cases.assign(label=case_labels(cases), peak_bytes=numbers(cases, "peak_bytes"))
    ranked = labelled.sort_values("peak_bytes", ascending=False, na_position="last", kind="stable")
    return ordered(labelled.loc[ranked.drop_duplicates("label").index.sort_values()])
