"""How each arm of a race stood, comparable across notebooks.

The notebooks 04, 05 and 06 run at different times, so their seconds must not be compared: a machine
that drifts would decide. Each of them therefore runs the same control arm (sequential/plain) in
turn with its own arms, and an arm's latency counts as a multiple of the control's median for the
same request in the same notebook. The control itself stands at 1 by construction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hybridlab.analysis.stats import Interval, bootstrap_interval, quantile, word_error_rate
from hybridlab.results.reader import has_clock
from hybridlab.units import MIB

CONTROL = ("sequential", "plain")
LEAST_TRIALS = 5
#: The parts of `cases` that name a pair.
PAIR_COLUMNS = (
    "llm_model",
    "llm_weights",
    "llm_dtype",
    "asr_model",
    "asr_backend",
    "asr_weights",
    "asr_dtype",
)
#: Differences between peaks below this are the allocator's rounding, not a finding.
LEAST_DIFFERENCE_BYTES = 1 * MIB
LEAST_DIFFERENCE_SHARE = 0.005
_KEY = ["notebook", "case_id"]


@dataclass(frozen=True, kw_only=True)
class ArmStats:
    """One arm: `relative` is latency over the control's, `rate` is throughput over the control's.

    `peak` spans the smallest to the largest peak over the arm's cases; its n counts the trials.
    """

    strategy: str
    variant: str
    n: int
    latency_s: Interval
    relative: Interval
    throughput_rps: float
    rate: Interval
    peak: Interval
    margin_bytes: float
    #: Seconds within which 95 % of the requests were served.
    p95_s: float
    #: Word error rate of all transcripts that have a reference; not-a-number without any.
    wer: float
    #: Every request's latency over the control's.
    relatives: tuple[float, ...]
    case_ids: tuple[str, ...]

    @property
    def arm(self) -> str:
        return f"{self.strategy}/{self.variant}"

    @property
    def peak_bytes(self) -> float:
        """The highest peak that was seen: what has to fit."""
        return self.peak.high


def standings(cases: pd.DataFrame, trials: pd.DataFrame) -> list[ArmStats]:
    """Each arm of the race with the pair that has most trials; first requests, failed cases and
    cases with a broken parity are left out. Of a simulated card an arm stands with its bytes alone.
    """
    good = race_cases(cases, trials)
    served = timed_trials(good, trials) if has_clock(good) else later_trials(good, trials)
    if good.empty or served.empty:
        return []
    served = served.assign(relative=_relative(served, served["latency_s"]))
    good = good.assign(rate=_relative(good, numbers(good, "throughput_rps")))
    found = []
    for (strategy, variant), own in good.groupby(["strategy", "variant"], sort=True):
        mine = served[(served["strategy"] == strategy) & (served["variant"] == variant)]
        if len(mine):
            found.append(_standing(str(strategy), str(variant), own, mine))
    return found


def race_cases(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Race cases of the main pair that ended well and said what each model says alone."""
    race = main_pair(with_notebook(cases[cases["experiment"] == "strategy_comparison"]))
    race = race[race["status"] == "ok"]
    broken = with_notebook(trials)
    broken = broken[is_value(broken["output_matches_reference"], False)]
    wrong = set(zip(broken["notebook"], broken["case_id"], strict=True))
    keep = [key not in wrong for key in zip(race["notebook"], race["case_id"], strict=True)]
    race = race[pd.Series(keep, index=race.index, dtype=bool)]
    return race.assign(peak_bytes=numbers(race, "peak_bytes"))


def main_pair(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases of the pair that most cases are about; solo cases, which have no Whisper, stay."""
    paired = cases[cases["asr_model"].notna()]
    if paired.empty:
        return cases
    names = paired[list(PAIR_COLUMNS)].astype(str).agg("|".join, axis=1)
    chosen = names.value_counts().sort_index().idxmax()
    return cases[cases["asr_model"].isna() | cases.index.isin(names.index[names == chosen])]


def timed_trials(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of these cases with a latency, first requests left out."""
    rows = later_trials(cases, trials)
    return rows[rows["latency_s"] > 0]


def later_trials(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of these cases without first requests."""
    rows = with_notebook(trials)
    rows = rows[~is_value(rows["is_first_request"], True)].assign(
        latency_s=numbers(rows, "latency_s")
    )
    return rows.merge(cases[_KEY].drop_duplicates(), on=_KEY)


def with_notebook(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `notebook`; a part's own table has none, since it holds only one."""
    return rows if "notebook" in rows else rows.assign(notebook="")


def is_value(column: pd.Series, value: bool) -> pd.Series:
    """Where a column of True, False and empty values is this one."""
    return column.astype("boolean").eq(value).fillna(False).astype(bool)


def numbers(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column as floats; all not-a-number where a table lacks it."""
    if column not in rows:
        return pd.Series(math.nan, index=rows.index, dtype=float)
    return pd.to_numeric(rows[column], errors="coerce").astype(float)


def is_control(rows: pd.DataFrame) -> pd.Series:
    """Where a row is one of the control arm."""
    return (rows["strategy"] == CONTROL[0]) & (rows["variant"] == CONTROL[1])


def _relative(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """`values` over the control's median of the same request, else of the same notebook.

    A single notebook without a control is compared with its own median; of several, those without
    one cannot be compared and become not-a-number.
    """
    control = values[is_control(rows)]
    at = rows.loc[control.index]
    if control.empty and rows["notebook"].nunique() == 1:
        return values / values.median()
    by_notebook = control.groupby(at["notebook"]).median()
    reference = rows["notebook"].map(by_notebook)
    if "request_id" in rows:
        by_request = control.groupby([at["notebook"], at["request_id"]]).median().to_dict()
        keys = zip(rows["notebook"], rows["request_id"], strict=True)
        paired = pd.Series([by_request.get(key, math.nan) for key in keys], index=rows.index)
        reference = paired.fillna(reference)
    return values / reference


def _standing(strategy: str, variant: str, cases: pd.DataFrame, trials: pd.DataFrame) -> ArmStats:
    return ArmStats(
        strategy=strategy,
        variant=variant,
        n=len(trials),
        latency_s=bootstrap_interval(trials["latency_s"]),
        relative=bootstrap_interval(trials["relative"]),
        throughput_rps=float(numbers(cases, "throughput_rps").median()),
        rate=span(cases["rate"], n=len(trials)),
        peak=span(cases["peak_bytes"], n=len(trials)),
        margin_bytes=float(numbers(cases, "margin_bytes").min()),
        p95_s=quantile(trials["latency_s"], 0.95),
        wer=_word_error_rate(trials),
        relatives=tuple(trials["relative"].dropna()),
        case_ids=tuple(cases["case_id"]),
    )


def _word_error_rate(trials: pd.DataFrame) -> float:
    if not {"transcript", "reference"} <= set(trials.columns):
        return math.nan
    said = trials[trials["transcript"].notna() & trials["reference"].notna()]
    if said.empty:
        return math.nan
    return word_error_rate(list(said["reference"]), list(said["transcript"]))


def span(values: Iterable[float], *, n: int) -> Interval:
    """Smallest to largest of a few readings: too few for a bootstrap, and all of them count."""
    known = [float(value) for value in values if not pd.isna(value)]
    if not known:
        return Interval(math.nan, math.nan, math.nan, 0)
    return Interval(float(np.median(known)), min(known), max(known), n)


def compare(left: Interval, right: Interval, *, least: float = 0.0) -> int | None:
    """-1 where left is clearly smaller, 1 where clearly larger, 0 where the two overlap or are
    less than `least` apart; None where either is unknown or stands on too few trials."""
    bounds = (left.low, left.high, right.low, right.high)
    if any(math.isnan(bound) for bound in bounds) or min(left.n, right.n) < LEAST_TRIALS:
        return None
    if left.high + least < right.low:
        return -1
    if right.high + least < left.low:
        return 1
    return 0


def least_difference_bytes(*peaks: Interval) -> float:
    """The difference between these peaks that counts as one."""
    largest = max((peak.high for peak in peaks if not math.isnan(peak.high)), default=0.0)
    return max(LEAST_DIFFERENCE_BYTES, LEAST_DIFFERENCE_SHARE * largest)
