"""What can be compared between runs: ways of sharing, and sizes beside Voxtral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hybridlab.analysis.standings import race_cases, timed_trials
from hybridlab.reporting.figures import wording
from hybridlab.reporting.html.model import Run, words


@dataclass(frozen=True)
class Way:
    """One way of sharing in one run: seconds of each request, and one value a case of the rest."""

    latencies_s: Sequence[float]
    case_medians_s: Sequence[float]
    rates_rps: Sequence[float]
    peaks_bytes: Sequence[float]


def ways(run: Run) -> dict[str, Way]:
    """Every way by name, from race cases that ended well and kept their texts."""
    cases, trials = run.cases, run.tables["trials"]
    if cases.empty:
        return {}
    good = race_cases(cases, trials)
    served = timed_trials(good, trials)
    found = {}
    for (strategy, variant), own in good.groupby(["strategy", "variant"], sort=True):
        mine = served[(served["strategy"] == strategy) & (served["variant"] == variant)]
        found[f"{strategy} ({variant})"] = Way(
            latencies_s=mine["latency_s"].to_list(),
            case_medians_s=mine.groupby(["notebook", "case_id"])["latency_s"].median().to_list(),
            rates_rps=wording.numbers(own, "throughput_rps").dropna().to_list(),
            peaks_bytes=wording.numbers(own, "peak_bytes").dropna().to_list(),
        )
    return found


#: The three numbers of a case's memory.
MOMENTS = {
    "load_peak_bytes": "load peak",
    "steady_bytes": "at rest",
    "request_peak_bytes": "request peak",
}


def sizes(run: Run) -> dict[str, dict[str, list[float]]]:
    """Bytes of each moment by what was resident, from cases that ended well."""
    cases = run.cases
    beside = cases[cases["experiment"].isin(["baseline", "beside"]) & cases["status"].eq("ok")]
    found: dict[str, dict[str, list[float]]] = {}
    for _, row in beside.iterrows():
        known = found.setdefault(_resident(row), {})
        for column in MOMENTS:
            value = wording.number_of(row, column)
            if not pd.isna(value):
                known.setdefault(column, []).append(value)
    return found


def _resident(row: pd.Series[Any]) -> str:
    """'medium (transformers float16, random) beside mini-3b bfloat16'."""
    voxtral = f"{words(row['voxtral'])} {words(row['voxtral_dtype'])}"
    if pd.isna(row["whisper_size"]):
        return f"{voxtral} alone"
    how = f"{words(row['whisper_backend'])} {words(row['whisper_dtype'])}"
    return f"{row['whisper_size']} ({how}, {words(row['whisper_weights'])}) beside {voxtral}"
