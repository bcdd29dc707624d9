"""Words and numbers as the tables write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from hybridlab.analysis.stats import Interval
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GIB, format_number

EMPTY = "–"
ASK_WORDS = {"audio_s": "longest audio", "batch": "largest batch", "beams": "most beams"}


def arm_name(strategy: str, variant: str) -> str:
    """'sequential / plain'."""
    return f"{strategy} / {variant}"


def case_label(row: pd.Series) -> str:
    """What sets a case apart in a table or plot of its experiment."""
    label = _LABELS.get(row["experiment"])
    return label(row) if label else arm_name(row["strategy"], row["variant"])


def _limit_label(row: pd.Series) -> str:
    unit = "s of audio" if row["limit_kind"] == "audio_s" else "in a batch"
    return f"{row['limit_value']:g} {unit}"


def _edge_label(row: pd.Series) -> str:
    return f"{ASK_WORDS.get(row['ask'], row['ask'])}, {arm_name(row['strategy'], row['variant'])}"


_LABELS: dict[str, Callable[[pd.Series], str]] = {
    "beside": lambda row: f"{row['whisper_size']} ({row['whisper_dtype']})",
    "loading": lambda row: (
        f"{row['whisper_size']} ({row['whisper_backend']}, {row['whisper_dtype']}), "
        f"{row['load_order']}, {row['load_path']}"
    ),
    "quality": lambda row: (
        f"quality of {row['voxtral' if row['variant'] == 'voxtral' else 'whisper_size']}"
    ),
    "limits": _limit_label,
    "edge": _edge_label,
    "attention": lambda row: f"{row['attention']}, {row['audio_s']:g} s of audio",
    "at_once": lambda row: f"{arm_name(row['strategy'], row['variant'])}, told apart",
    "ageing": lambda row: f"{row['strategy']}, remedy {row['remedy']}",
}


def interval(estimate: Interval) -> str:
    """'0.41 (0.39–0.44)'; without bounds where a single value has none."""
    if estimate.n == 0:
        return EMPTY
    if math.isnan(estimate.low):
        return format_number(estimate.value)
    value, low, high = map(format_number, (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low}–{high})"


def number(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else format_number(value)


def percent(value: float | None) -> str:
    return EMPTY if value is None or pd.isna(value) else f"{100 * value:.1f} %"


def parity_text(parity: Iterable[Any]) -> str:
    """'12 of 12': how many trials said what the tenants say alone."""
    known = [bool(p) for p in parity if p is not None and not pd.isna(p)]
    return f"{sum(known)} of {len(known)}" if known else EMPTY


def gib(n_bytes: float | None) -> str:
    return EMPTY if n_bytes is None or pd.isna(n_bytes) else f"{n_bytes / GIB:.2f}"


def no_times() -> pd.DataFrame:
    """In place of a table of times of a simulated card: why there is none."""
    return pd.DataFrame({"no times": [NO_TIMES]})


def filled(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as people read them: a dash where nothing is known."""
    return table.astype(object).where(table.notna(), EMPTY)


def number_or_none(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
