"""Tables that people read: rows of a run, summarised with units in their headings. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.stats import Interval, bootstrap_interval, is_stable, word_error_rate
from hybridlab.units import GIB

EMPTY = "–"


def arm_name(strategy: str, variant: str) -> str:
    """'sequential / plain'."""
    return f"{strategy} / {variant}"


def race_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials of the races without first requests, with a column `arm`."""
    if trials.empty:
        return trials.assign(arm=pd.Series(dtype=str))
    kept = trials[(trials["experiment"] == "race") & ~trials["first"].astype(bool)]
    return kept.assign(
        arm=[arm_name(s, v) for s, v in zip(kept["strategy"], kept["variant"], strict=True)]
    )


def memory_table(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case: where its bytes went, in GiB, and what became of it."""
    return pd.DataFrame(
        [
            {
                "case": case_label(row),
                "base GiB": _gib(row.get("base_bytes")),
                "Voxtral GiB": _gib(row.get("voxtral_bytes")),
                "Whisper GiB": _gib(row.get("whisper_bytes")),
                "load peak GiB": _gib(row.get("load_peak_bytes")),
                "steady GiB": _gib(row.get("steady_bytes")),
                "request peak GiB": _gib(row.get("request_peak_bytes")),
                "margin GiB": _gib(row.get("margin_bytes")),
                "status": row["status"],
                "reason": row.get("reason") or EMPTY,
            }
            for _, row in cases.iterrows()
        ]
    )


def case_label(row: pd.Series) -> str:
    """What sets a case apart in a table or plot of its experiment."""
    if row["experiment"] == "beside":
        return f"{row['whisper_size']} ({row['whisper_dtype']})"
    if row["experiment"] == "limits":
        unit = "s of audio" if row["limit_kind"] == "audio_s" else "in a batch"
        return f"{row['limit_value']:g} {unit}"
    if row["experiment"] == "ageing":
        return f"remedy: {row['remedy']}"
    return arm_name(row["strategy"], row["variant"])


def latency_table(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per arm of a race: latency, throughput, peak, parity, quality."""
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
                "strategy": arm,
                "n": len(own),
                "median s": interval(bootstrap_interval(own["latency_s"])),
                "p95 s": f"{np.quantile(own['latency_s'], 0.95):.3g}",
                "first s": number(first["latency_s"].median() if len(first) else None),
                "RTFx": number(float(own["audio_s"].sum() / own["latency_s"].sum())),
                "requests/s": number(arm_cases["throughput_rps"].median()),
                "peak GiB": _gib(_highest(arm_cases)),
                "parity": parity_text(own["parity"]),
                "WER": percent(_wer(own)),
                "answers right": percent(answer_accuracy(own)),
                "stable": "yes" if is_stable(list(own["latency_s"])) else "no",
            }
        )
    return pd.DataFrame(rows)


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


def phase_table(spans: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each phase of each tenant."""
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


def ledger_table(ledgers: pd.DataFrame) -> pd.DataFrame:
    """Each owner's bytes at each moment, in MiB, beside what the planner predicted."""
    if ledgers.empty:
        return pd.DataFrame(columns=["moment", "owner", "MiB", "predicted MiB"])
    return pd.DataFrame(
        {
            "moment": ledgers["moment"].str.replace("_", " "),
            "owner": ledgers["owner"],
            "MiB": [f"{n / 2**20:,.1f}" for n in ledgers["bytes"]],
            "predicted MiB": [
                EMPTY if pd.isna(n) else f"{n / 2**20:,.1f}" for n in ledgers["predicted_bytes"]
            ],
        }
    )


# ---------------------------------------------------------------------------------------- pieces


def interval(estimate: Interval) -> str:
    """'0.41 (0.39–0.44)'; without bounds where a single value has none."""
    if estimate.n == 0:
        return EMPTY
    if math.isnan(estimate.low):
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} ({estimate.low:.3g}–{estimate.high:.3g})"


def number(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else f"{100 * value:.1f} %"


def parity_text(parity: Iterable[Any]) -> str:
    """'12 of 12': how many trials said what the tenants say alone."""
    known = [bool(p) for p in parity if p is not None and not pd.isna(p)]
    return f"{sum(known)} of {len(known)}" if known else EMPTY


def _gib(n_bytes: float | None) -> str:
    return EMPTY if n_bytes is None or pd.isna(n_bytes) else f"{n_bytes / GIB:.2f}"
