"""What became of a run's cases, in words: how many are invalid and why, what was lost or stopped,
and what to do. Every sentence about times, and the last line of `hybridlab run`, goes through it.

An invalid case is one beside which other programs computed: its times are not its own, while its
bytes and texts are, and count.
"""

from __future__ import annotations

import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.processes.fork_server import STOPPED

#: What has bytes that count.
WITH_BYTES = ("ok", "invalid")
#: A status as a sentence has it; others by their own name.
WORDS = {"ok": "measured", "oom": "out of memory", "timeout": "timed out"}


def with_bytes(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases whose bytes count."""
    return cases[cases["status"].isin(WITH_BYTES)]


def statuses(cases: pd.DataFrame) -> pd.Series:
    """Each case's status in words; what the reader stopped is no skipped one."""
    reasons = cases["reason"].fillna("").astype(str)
    stopped = cases["status"].eq("skipped") & reasons.eq(STOPPED)
    return cases["status"].astype(str).replace(WORDS).mask(stopped, "stopped")


def counts_words(cases: pd.DataFrame) -> str:
    """'94 cases: 90 measured, 4 skipped'."""
    counts = statuses(cases).value_counts()
    words = ", ".join(f"{n} {status}" for status, n in counts.items())
    return f"{len(cases)} {'case' if len(cases) == 1 else 'cases'}: {words}" if len(cases) else ""


def none_valid(cases: pd.DataFrame) -> bool:
    """Whether all that would have times in some experiment is invalid."""
    own = _disturbed(cases)
    return any((rows["status"] == "invalid").all() for _, rows in own.groupby("experiment"))


def invalid_words(cases: pd.DataFrame) -> str:
    """'8 of 8 cases invalid: other programs used up to 75 % of the CPU; close them and repeat',
    of the experiments that have such cases; '' where none has."""
    own = _disturbed(cases)
    invalid = own[own["status"] == "invalid"]
    if invalid.empty:
        return ""
    noun = "case" if len(own) == 1 else "cases"
    return f"{len(invalid)} of {len(own)} {noun} invalid: {_cause(invalid)}; close them and repeat"


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
    return f"other programs used {'up to ' if len(invalid) > 1 else ''}{share * 100:.0f} % of the CPU"
