"""How each arm of a race stood, comparable across notebooks.

The case is the unit. The notebooks 04, 05 and 06 run at different times, so their seconds must not
be compared: a machine that drifts would decide. Each of them therefore runs the same control arm
(sequential/plain) in every round beside its own arms, and a case counts by the logarithm of its
latency and throughput over those of the control's case in the same notebook and round, request by
request (their median). An arm has as many of these readings as it has rounds; they hold the
control's own error, and what slowed a whole round is in none of them. The control itself stands at
1 by construction.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hybridlab.analysis.stats import (
    LEAST_READINGS,
    Interval,
    student,
    tail,
    word_error_rate,
)
from hybridlab.analysis.texts import TEXTS, heard, is_cut
from hybridlab.results.reader import has_clock

CONTROL = ("sequential", "plain")
#: Below so many rounds nothing is said of a difference.
LEAST_ROUNDS = LEAST_READINGS
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
#: What became of a case that bars its arm, in words.
FAILURES = {"oom": "out of memory", "crashed": "crashed", "timeout": "timed out"}
_KEY = ["notebook", "case_id"]
_ROUND = ["notebook", "round"]

Figure = Literal["latency", "throughput", "peak_bytes", "margin_bytes", "wer"]
#: One reading each of a notebook's round, or of a clip where texts are read.
Readings = Mapping[tuple[str, Hashable], float]


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmStats:
    """One arm: `relative` is latency over the control's, `rate` is throughput over the control's;
    the intervals' n counts rounds, `n` the cases that ended well of those `asked` for."""

    strategy: str
    variant: str
    n: int
    asked: int
    latency_s: Interval
    relative: Interval
    throughput_rps: float
    rate: Interval
    #: The highest peak that was seen: what has to fit.
    peak_bytes: float
    margin_bytes: float
    #: Seconds within which 95 % of the requests were served.
    p95_s: float
    #: Word error rate of all transcripts that have a reference and were not cut short;
    #: not-a-number without any.
    wer: float
    #: Of all its `texts`, transcripts and answers, those that were cut short.
    cut: int
    texts: int
    #: What bars the arm: rounds that ran out of memory, crashed, timed out or said something else
    #: than each model says alone. '' where none did.
    failed: str
    #: Rounds with a text that could not be held against the model's alone.
    unchecked: int
    readings: Mapping[Figure, Readings]
    case_ids: tuple[str, ...]

    @property
    def arm(self) -> str:
        return f"{self.strategy}/{self.variant}"

    @property
    def few(self) -> bool:
        """Whether it has too few rounds to be told from another."""
        return count(self.readings["peak_bytes"]) < LEAST_ROUNDS

    @property
    def caveats(self) -> str:
        """What must be said before anything else of this arm; '' where there is nothing."""
        lost = self.asked - self.n
        found = [
            self.failed,
            f"{self.cut} of {self.texts} texts cut short" if self.cut else "",
            f"texts unchecked in {self.unchecked} of {self.n} cases" if self.unchecked else "",
            f"{lost} of {self.asked} cases lost" if lost and not self.failed else "",
        ]
        return ", ".join(words for words in found if words)


def standings(cases: pd.DataFrame, trials: pd.DataFrame) -> list[ArmStats]:
    """Each arm of the race with the pair that has most cases, those that are barred too; what it
    is compared by comes from its cases that ended well, first requests left out. Of a simulated
    card an arm stands with its bytes alone."""
    raced = race(cases)
    good = raced[raced["status"] == "ok"]
    later = later_trials(good, trials)
    served = later[later["latency_s"] > 0] if has_clock(good) else later
    if good.empty or served.empty:
        return []
    failed, unchecked = _failures(raced, trials), _unchecked(later)
    readings: dict[Figure, dict[str, Readings]] = {
        "latency": _by_arm(served, _over_control(served, served["latency_s"])),
        "throughput": _by_arm(good, _over_control(good, numbers(good, "throughput_rps"))),
        "peak_bytes": _by_arm(good, np.log(numbers(good, "peak_bytes"))),
        "margin_bytes": _by_arm(good, numbers(good, "margin_bytes")),
    }
    asked = _counts(raced[raced["status"] != "skipped"])
    return [
        _standing(
            good[good["arm"] == arm],
            requests,
            {figure: known.get(arm, {}) for figure, known in readings.items()},
            asked=asked[arm],
            failed=failed.get(arm, ""),
            unchecked=unchecked.get(arm, 0),
        )
        for arm, requests in ((str(arm), rows) for arm, rows in served.groupby("arm"))
    ]


def race(cases: pd.DataFrame) -> pd.DataFrame:
    """Every race case of the main pair with its notebook, arm and round, whatever became of it."""
    found = main_pair(with_notebook(cases[cases["experiment"] == "strategy_comparison"]))
    found = found.assign(arm=found["strategy"].astype(str) + "/" + found["variant"].astype(str))
    at = found.groupby(["notebook", "arm"]).cumcount().astype(float)
    return found.assign(round=numbers(found, "round").fillna(at))


def race_cases(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Race cases that ended well, of the arms that nothing bars."""
    raced = race(cases)
    good = raced[raced["status"] == "ok"]
    good = good[~good["arm"].isin(_failures(raced, trials))]
    return good.assign(peak_bytes=numbers(good, "peak_bytes"))


def failures(cases: pd.DataFrame, trials: pd.DataFrame) -> dict[str, str]:
    """The arms that are barred, by name, and what bars each."""
    return _failures(race(cases), trials)


def _failures(raced: pd.DataFrame, trials: pd.DataFrame) -> dict[str, str]:
    texts = with_notebook(trials)
    texts = texts[is_value(texts["output_matches_reference"], False)][_KEY].drop_duplicates()
    rows = [(words, raced[raced["status"] == status]) for status, words in FAILURES.items()]
    rows += [("other words than alone", raced[raced["status"] == "ok"].merge(texts, on=_KEY))]
    asked = _counts(raced)
    found: dict[str, list[str]] = {}
    for words, bad in rows:
        for arm, n in _counts(bad).items():
            found.setdefault(arm, []).append(f"{words} in {n} of {asked[arm]} cases")
    return {arm: ", ".join(found[arm]) for arm in sorted(found)}


def _unchecked(later: pd.DataFrame) -> dict[str, int]:
    """Rounds of each arm with a text that nothing was held against."""
    rows = later[later["output_matches_reference"].isna()]
    return _counts(rows.drop_duplicates(_KEY))


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {str(arm): int(n) for arm, n in rows["arm"].value_counts().items()}


def main_pair(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases of the pair that most cases are about; solo cases, which have no Whisper, stay."""
    paired = cases[cases["asr_model"].notna()]
    if paired.empty:
        return cases
    parts = paired[list(PAIR_COLUMNS)].astype(str)
    names = parts.iloc[:, 0].str.cat(parts.iloc[:, 1:], sep="|")
    chosen = names.value_counts().sort_index().idxmax()
    return cases[cases["asr_model"].isna() | cases.index.isin(names.index[names == chosen])]


def timed_trials(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of these cases with a latency, first requests left out."""
    rows = later_trials(cases, trials)
    return rows[rows["latency_s"] > 0]


def later_trials(cases: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of these cases of a race with their arms and rounds, without first requests."""
    rows = with_notebook(trials)
    rows = rows[~is_value(rows["is_first_request"], True)].assign(
        latency_s=numbers(rows, "latency_s")
    )
    about = cases[[*_KEY, "arm", "round"]].drop_duplicates(_KEY)
    return rows.drop(columns=["arm", "round"], errors="ignore").merge(about, on=_KEY)


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


def _over_control(rows: pd.DataFrame, values: pd.Series) -> pd.Series:
    """The logarithm of `values` over the control's of the same notebook, round and request.

    A single notebook without a control is compared with the median of its arms; of several, those
    without one cannot be compared and become not-a-number.
    """
    by = [*_ROUND, "request_id"] if "request_id" in rows else _ROUND
    control = rows["arm"] == "/".join(CONTROL)
    if not control.any() and rows["notebook"].nunique() == 1:
        control[:] = True
    usual = values[control].groupby([rows.loc[control, name] for name in by]).median()
    keys = pd.MultiIndex.from_frame(rows[by])
    over = np.log(values.to_numpy() / usual.reindex(keys).to_numpy(dtype=float))
    return pd.Series(over, index=rows.index)


def _by_arm(rows: pd.DataFrame, values: pd.Series) -> dict[str, Readings]:
    """The median of each arm in each notebook and round."""
    by = ["arm", *_ROUND]
    medians = values.dropna().groupby([rows[name] for name in by]).median().rename("value")
    found: dict[str, dict[tuple[str, Hashable], float]] = {}
    for arm, notebook, number, value in medians.reset_index().to_numpy():
        found.setdefault(str(arm), {})[str(notebook), float(number)] = float(value)
    return dict(found)


def _standing(
    cases: pd.DataFrame,
    trials: pd.DataFrame,
    readings: dict[Figure, Readings],
    *,
    asked: int,
    failed: str,
    unchecked: int,
) -> ArmStats:
    medians_s = trials.groupby(_KEY)["latency_s"].median()
    said = _said(trials)
    return ArmStats(
        strategy=str(cases["strategy"].iloc[0]),
        variant=str(cases["variant"].iloc[0]),
        n=len(cases),
        asked=asked,
        latency_s=student(np.log(medians_s)).interval().exponential(),
        relative=student(readings["latency"].values()).interval().exponential(),
        throughput_rps=float(numbers(cases, "throughput_rps").median()),
        rate=student(readings["throughput"].values()).interval().exponential(),
        peak_bytes=float(numbers(cases, "peak_bytes").max()),
        margin_bytes=float(numbers(cases, "margin_bytes").min()),
        p95_s=tail(trials["latency_s"]),
        wer=word_error_rate(list(said["reference"]), list(said["transcript"])),
        **_texts(trials),
        failed=failed,
        unchecked=unchecked,
        readings={**readings, "wer": _clip_errors(said)},
        case_ids=tuple(cases["case_id"]),
    )


def _said(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials whose transcript can be held against its reference."""
    if not {"clip_id", "transcript", "reference"} <= set(trials.columns):
        return pd.DataFrame(columns=["clip_id", "transcript", "reference"])
    return heard(trials)


def _texts(trials: pd.DataFrame) -> dict[str, int]:
    cut = n_texts = 0
    for text in TEXTS:
        if text in trials:
            there = trials[trials[text].notna()]
            cut, n_texts = cut + int(is_cut(there, text).sum()), n_texts + len(there)
    return {"cut": cut, "texts": n_texts}


def _clip_errors(said: pd.DataFrame) -> Readings:
    """The word error rate of each clip: a round more is no other clip."""
    return {
        ("", str(clip)): word_error_rate(list(own["reference"]), list(own["transcript"]))
        for clip, own in said.groupby("clip_id")
    }


def count(readings: Readings) -> int:
    """Of rounds, not of the notebooks that ran each, or of clips."""
    return len({place for _, place in readings})
