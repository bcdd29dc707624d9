"""Tables of requests: latency and throughput per arm, also of requests that come at their own
times; words per model, seconds per phase."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.queueing import arrival_points, knees
from hybridlab.analysis.stats import is_stable, quantile, tail, word_error_rate
from hybridlab.analysis.texts import Text, heard, is_cut, is_said
from hybridlab.reporting import labels
from hybridlab.reporting.rows import (
    RACE,
    arms_of,
    case_interval,
    cases_of,
    complete_tables,
    is_first,
    race_trials,
    timed_table,
)
from hybridlab.results.reader import has_clock


@complete_tables
def latency_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race: latency, throughput, energy, peak, margin, parity, quality; n
    counts cases."""
    race = cases_of(cases, RACE)
    firsts = arms_of(trials[is_first(trials)])
    rows, timed = [], has_clock(cases)
    for arm, own in race_trials(trials).groupby("arm", sort=False):
        keys = ["strategy", "variant"]
        arm_cases = race[(race[keys] == own[keys].iloc[0]).all(axis=1)]
        first = firsts.loc[firsts["arm"] == arm, "latency_s"]
        served_rps = arm_cases["throughput_rps"].median()
        rows.append(
            {
                "strategy": arm,
                "n": own.loc[own["latency_s"].notna() | (not timed), "case_id"].nunique(),
                "median s": labels.interval(case_interval(own, own["latency_s"])),
                "p95 s": labels.number(tail(own["latency_s"])),
                "p99 s": labels.number(tail(own["latency_s"], 0.99)),
                "first s": labels.number(first.median()),
                # audio over time on the clock: requests of a batch share theirs
                "RTFx": labels.number(own["audio_s"].mean() * served_rps),
                "requests/s": labels.number(served_rps),
                "J/request": labels.number(numbers(arm_cases, "request_energy_j").median()),
                "peak GiB": labels.gib(numbers(arm_cases, "peak_bytes").max()),
                "margin GiB": labels.gib(numbers(arm_cases, "margin_bytes").median()),
                "texts as alone": labels.output_matches_reference(own["output_matches_reference"]),
                "WER": _of_whole(own, "transcript", _wer(own)),
                "answers right": _of_whole(own, "answer", answer_accuracy(own)),
                "stable": labels.text(is_stable(case_interval(own, own["latency_s"])))
                if has_clock(own)
                else labels.EMPTY,
            }
        )
    return pd.DataFrame(rows)


def _wer(trials: pd.DataFrame) -> float:
    said = heard(trials)
    return word_error_rate(list(said["reference"]), list(said["transcript"]))


def _of_whole(trials: pd.DataFrame, text: Text, share: float | None) -> str:
    """'3.0 %', or where texts were cut short '3.0 % (28 of 40 texts)'."""
    there = trials[trials[text].notna()]
    cut = int(is_cut(there, text).sum())
    left = f" ({len(there) - cut} of {len(there)} texts)" if cut else ""
    return f"{labels.percent(share)}{left}"


def same_answer(expected: str, given: str) -> bool:
    """Whether an answer is the expected one, case and punctuation ignored."""
    return _words(expected) == _words(given)


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def answer_accuracy(trials: pd.DataFrame) -> float | None:
    """Share of right answers among those whose answer is known and that were not cut short; None
    without any."""
    known = trials[is_said(trials, "answer") & trials["expected_answer"].notna()]
    if known.empty:
        return None
    pairs = zip(known["expected_answer"], known["answer"], strict=True)
    return float(np.mean([same_answer(expected, given) for expected, given in pairs]))


@complete_tables
def quality_table(trials: pd.DataFrame) -> pd.DataFrame:
    """WER and answer accuracy of each model alone (experiment `reference`)."""
    alone = trials[trials["experiment"] == "reference"]
    return pd.DataFrame(
        [
            {
                "model": labels.role_name(str(role)),
                "clips": own["clip_id"].nunique(),
                "WER": _of_whole(own, "transcript", _wer(own)),
                "answers right": _of_whole(own, "answer", answer_accuracy(own)),
                "median s": labels.number(own[~is_first(own)]["latency_s"].median()),
            }
            for role, own in alone.groupby("variant", sort=False)
        ]
    )


@complete_tables
def texts_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per request: what was said, what should have been, and how each text ended."""
    return pd.DataFrame(
        {
            "clip": trials["clip_id"],
            "audio s": numbers(trials, "audio_s"),
            "latency s": numbers(trials, "latency_s"),
            "transcript": trials["transcript"],
            "reference": trials["reference"],
            "transcript ended by": trials["transcript_finish"],
            "question": trials["question"],
            "answer": trials["answer"],
            "expected answer": trials["expected_answer"],
            "answer ended by": trials["answer_finish"],
        }
    ).reset_index(drop=True)


@timed_table
def phase_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each phase of each model in these cases."""
    rows = []
    for (role, phase), own in spans.groupby(["role", "phase"], sort=False):
        took = labels.interval(case_interval(own, own["end_s"] - own["start_s"]))
        rows.append((labels.role_name(str(role)), phase, len(own), took))
    return pd.DataFrame(rows, columns=["model", "phase", "n", "median s"])


@timed_table
def arrivals_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and rate at which requests came, and whether it lies before the knee; empty
    where there are too few requests for a p95 and a knee."""
    points = arrival_points(trials, cases)
    if points.empty:
        return pd.DataFrame(columns=["strategy", "rate /s", "n", "median s", "p95 s", "wait s"])
    held = knees(points)
    return pd.DataFrame(
        [
            {
                "strategy": row["arm"],
                "rate /s": labels.number(row["rate_rps"]),
                "n": row["n"],
                "median s": labels.number(quantile(row["latencies"], 0.5)),
                "p95 s": labels.number(row["p95_s"]),
                "wait s": labels.number(row["queue_time_s"]),
                "served /s": labels.number(row["served_rps"]),
                "at most /s": labels.number(row["capacity_rps"]),
                "before the knee": labels.EMPTY
                if np.isnan(row["p95_s"])
                else labels.text(bool(row["rate_rps"] <= held[row["arm"]])),
            }
            for _, row in points.sort_values(["arm", "rate_rps"]).iterrows()
        ]
    )
