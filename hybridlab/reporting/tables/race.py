"""Tables of requests: latency and throughput per arm, words per tenant, seconds per phase."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from hybridlab.analysis.standings import numbers
from hybridlab.analysis.stats import bootstrap_interval, is_stable, quantile, word_error_rate
from hybridlab.reporting.tables.words import (
    EMPTY,
    arm_name,
    gib,
    interval,
    no_times,
    number,
    number_or_none,
    parity_text,
    percent,
)
from hybridlab.results.records import has_clock


def race_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of the races without first requests, with a column `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    kept = trials[(trials["experiment"] == "race") & ~trials["first"].astype(bool)]
    return kept.assign(
        arm=[arm_name(s, v) for s, v in zip(kept["strategy"], kept["variant"], strict=True)]
    )


def latency_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race: latency, throughput, energy, peak, margin, parity, quality."""
    rows = []
    measured = race_trials(trials)
    for arm, own in measured.groupby("arm", sort=False):
        strategy, variant = str(arm).split(" / ")
        arm_cases = cases[
            (cases["experiment"] == "race")
            & (cases["strategy"] == strategy)
            & (cases["variant"] == variant)
        ]
        first = trials[
            (trials["experiment"] == "race")
            & (trials["strategy"] == strategy)
            & (trials["variant"] == variant)
            & trials["first"].astype(bool)
        ]
        rows.append(
            {
                "strategy": f"{arm} (stepped down)" if _stepped(arm_cases) else arm,
                "n": len(own),
                "median s": interval(bootstrap_interval(own["latency_s"])),
                "p95 s": number(quantile(own["latency_s"], 0.95)),
                "p99 s": number(quantile(own["latency_s"], 0.99)),
                "first s": number(first["latency_s"].median() if len(first) else None),
                # audio over time on the clock: requests of a batch share theirs
                "RTFx": number(own["audio_s"].mean() * arm_cases["throughput_rps"].median()),
                "requests/s": number(arm_cases["throughput_rps"].median()),
                "J/request": number(_median(arm_cases, "request_energy_j")),
                "peak GiB": gib(_highest(arm_cases)),
                "margin GiB": gib(_median(arm_cases, "margin_bytes")),
                "parity": parity_text(own["parity"]),
                "WER": percent(_wer(own)),
                "answers right": percent(answer_accuracy(own)),
                "stable": _stable_word(own),
            }
        )
    return pd.DataFrame(rows)


def _stable_word(trials: pd.DataFrame) -> str:
    if not has_clock(trials):
        return EMPTY
    return "yes" if is_stable(list(trials["latency_s"])) else "no"


def _stepped(cases: pd.DataFrame) -> bool:
    """Whether a smaller Whisper than the pair's served some of the requests."""
    return bool((numbers(cases, "steps_down") > 0).any())


def _median(cases: pd.DataFrame, column: str) -> float | None:
    """None where no case has a reading, or the run is from before it was taken."""
    return number_or_none(numbers(cases, column).median())


def _highest(cases: pd.DataFrame) -> float | None:
    columns = [c for c in ("load_peak_bytes", "request_peak_bytes") if c in cases]
    values = cases[columns].to_numpy(dtype=float) if columns else np.empty(0)
    return float(np.nanmax(values)) if values.size and not np.isnan(values).all() else None


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
    """WER and answer accuracy of each tenant alone (experiment `alone`)."""
    alone = trials[trials["experiment"] == "alone"]
    return pd.DataFrame(
        [
            {
                "tenant": tenant,
                "clips": own["clip_id"].nunique(),
                "WER": percent(_wer(own)),
                "answers right": percent(answer_accuracy(own)),
                "median s": interval(
                    bootstrap_interval(own[~own["first"].astype(bool)]["latency_s"])
                ),
            }
            for tenant, own in alone.groupby("variant", sort=False)
        ]
    )


def phase_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each phase of each tenant in these cases."""
    if not has_clock(cases):
        return no_times()
    if spans.empty:
        return pd.DataFrame(columns=["tenant", "phase", "n", "median s"])
    seconds = spans.assign(seconds=spans["end_s"] - spans["start_s"])
    return pd.DataFrame(
        [
            {
                "tenant": t,
                "phase": p,
                "n": len(own),
                "median s": interval(bootstrap_interval(own["seconds"])),
            }
            for (t, p), own in seconds.groupby(["tenant", "phase"], sort=False)
        ]
    )
