"""Invalid cases: which they are, why, and what is left of them. Every sentence about times, and the
last line of `hybridlab run`, goes through here.

An invalid case is one beside which other programs computed: its times are not its own, while its
bytes and texts are, and count.
"""

from __future__ import annotations

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.results.schema import is_time
from hybridlab.units import counted

#: Columns that say why a case is invalid.
CAUSES = ("other_processes_cpu_share",)
#: What to do about it.
REMEDY = "close them and repeat"
#: What has bytes that count.
WITH_BYTES = ("ok", "invalid")


def with_bytes(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases whose bytes count."""
    return cases[cases["status"].isin(WITH_BYTES)]


def valid_times(rows: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of any table of a run with times that count alone: those of an invalid case are empty.
    Spans, which are nothing else, are left out."""
    key = [name for name in ("notebook", "case_id") if name in rows and name in cases]
    lost = cases.loc[cases["status"] == "invalid", key]
    if rows.empty or lost.empty or "case_id" not in key:
        return rows
    invalid = pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(lost))
    if {"start_s", "end_s"} <= set(rows.columns):
        return rows[~invalid]
    times = [str(name) for name in rows if is_time(str(name)) and name not in CAUSES]
    return rows.assign(**{name: rows[name].mask(invalid) for name in times})


def none_valid(cases: pd.DataFrame) -> bool:
    """Whether all that would have times in some experiment is invalid."""
    own = _disturbed(cases)
    return any((rows["status"] == "invalid").all() for _, rows in own.groupby("experiment"))


def invalid_words(cases: pd.DataFrame) -> str:
    """'8 of 8 cases invalid: other programs used up to 75 % of the CPU', of the experiments that
    have such cases; '' where none has."""
    if "status" not in cases:  # nothing was measured
        return ""
    own = _disturbed(cases)
    invalid = own[own["status"] == "invalid"]
    if invalid.empty:
        return ""
    return f"{len(invalid)} of {counted(len(own), 'case')} invalid: {_cause(invalid)}"


def invalid_advice(cases: pd.DataFrame) -> str:
    """`invalid_words`, what to do, and what counts all the same; '' where no case is invalid."""
    words = invalid_words(cases)
    return f"{words}; {REMEDY}. Their bytes and texts count, their times do not." if words else ""


def _disturbed(cases: pd.DataFrame) -> pd.DataFrame:
    """What ran of the experiments that have an invalid case."""
    lost = set(cases.loc[cases["status"] == "invalid", "experiment"])
    return cases[cases["experiment"].isin(lost) & cases["status"].isin(WITH_BYTES)]


def _cause(invalid: pd.DataFrame) -> str:
    if (numbers(invalid, "other_gpu_processes") > 0).any():
        return "other programs computed on the GPU"
    share = numbers(invalid, "other_processes_cpu_share").max()
    if pd.isna(share):
        return "other programs were at work"
    return (
        f"other programs used {'up to ' if len(invalid) > 1 else ''}{share * 100:.0f} % of the CPU"
    )
