"""Tables of requests: latency and throughput per arm, words per model, seconds per phase."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import bootstrap_interval, is_stable, quantile, word_error_rate
from hybridlab.reporting import labels
from hybridlab.reporting.rows import arms_of, cases_of, highest_peak, is_first, race_trials
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES


def no_times() -> pd.DataFrame:
    """In place of a table of times of a simulated card: why there is none."""
    return pd.DataFrame({"no times": [NO_TIMES]})


def latency_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race: latency, throughput, energy, peak, margin, parity, quality."""
    race = cases_of(cases, "strategy_comparison")
    firsts = arms_of(trials[is_first(trials)]) if len(trials) else trials
    rows = []
    for arm, own in race_trials(trials).groupby("arm", sort=False):
        arm_cases = race[
            (race["strategy"] == own["strategy"].iloc[0])
            & (race["variant"] == own["variant"].iloc[0])
        ]
        smaller = (numbers(arm_cases, "fallbacks") > 0).any()
        first = firsts.loc[firsts["arm"] == arm, "latency_s"] if len(firsts) else pd.Series()
        served_rps = arm_cases["throughput_rps"].median()
        rows.append(
            {
                "strategy": f"{arm} (stepped down)" if smaller else arm,
                "n": len(own),
                "median s": labels.interval(bootstrap_interval(own["latency_s"])),
                "p95 s": labels.number(quantile(own["latency_s"], 0.95)),
                "p99 s": labels.number(quantile(own["latency_s"], 0.99)),
                "first s": labels.number(first.median()),
                # audio over time on the clock: requests of a batch share theirs
                "RTFx": labels.number(own["audio_s"].mean() * served_rps),
                "requests/s": labels.number(served_rps),
                "J/request": labels.number(numbers(arm_cases, "request_energy_j").median()),
                "peak GiB": labels.gib(highest_peak(arm_cases).max()),
                "margin GiB": labels.gib(numbers(arm_cases, "margin_bytes").median()),
                "output_matches_reference": labels.output_matches_reference(
                    own["output_matches_reference"]
                ),
                "WER": labels.percent(_wer(own)),
                "answers right": labels.percent(answer_accuracy(own)),
                "stable": labels.text(bool(is_stable(list(own["latency_s"]))))
                if has_clock(own)
                else labels.EMPTY,
            }
        )
    return pd.DataFrame(rows)


def _wer(trials: pd.DataFrame) -> float | None:
    said = trials[trials["transcript"].notna() & trials["reference"].notna()]
    return word_error_rate(list(said["reference"]), list(said["transcript"]))


def same_answer(expected: str, given: str) -> bool:
    """Whether an answer is the expected one, case and punctuation ignored."""
    return _words(expected) == _words(given)


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def answer_accuracy(trials: pd.DataFrame) -> float | None:
    """Share of right answers among those whose answer is known; None without any."""
    known = trials[trials["answer"].notna() & trials["expected_answer"].notna()]
    if known.empty:
        return None
    pairs = zip(known["expected_answer"], known["answer"], strict=True)
    return float(np.mean([same_answer(expected, given) for expected, given in pairs]))


def quality_table(trials: pd.DataFrame) -> pd.DataFrame:
    """WER and answer accuracy of each model alone (experiment `reference`)."""
    alone = trials[trials["experiment"] == "reference"]
    return pd.DataFrame(
        [
            {
                "role": tenant,
                "clips": own["clip_id"].nunique(),
                "WER": labels.percent(_wer(own)),
                "answers right": labels.percent(answer_accuracy(own)),
                "median s": labels.interval(bootstrap_interval(own[~is_first(own)]["latency_s"])),
            }
            for tenant, own in alone.groupby("variant", sort=False)
        ]
    )


def phase_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each phase of each model in these cases."""
    if not has_clock(cases):
        return no_times()
    rows: list[dict[str, Any]] = []
    keys = ["role", "phase"]
    for (tenant, phase), own in spans.groupby(keys, sort=False) if len(spans) else ():
        took = labels.interval(bootstrap_interval(own["end_s"] - own["start_s"]))
        rows.append({"role": tenant, "phase": phase, "n": len(own), "median s": took})
    return pd.DataFrame(rows, columns=[*keys, "n", "median s"])
