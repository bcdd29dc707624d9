"""From rows to words: labels, reasons; cells that may be missing."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from hybridlab.reporting.figures.order import ordered
from hybridlab.units import format_bytes


def wrap(text: str, width: int, *, lines: int = 3) -> str:
    """Wrap a reason; what does not fit in `lines` is cut with an ellipsis."""
    return "\n".join(
        textwrap.wrap(" ".join(str(text).split()), width, max_lines=lines, placeholder=" …")
    )


def present(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """The values of a column that are there; empty where the column itself is not."""
    if column not in table.columns:
        return pd.Series(dtype=object)
    values = table[column].dropna()
    return values[values.astype(str) != ""]


def numbers(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as floats, NaN for all that is missing, even the column."""
    if column not in table.columns:
        return pd.Series(np.nan, index=table.index, dtype=float)
    return pd.to_numeric(table[column], errors="coerce").astype(float)


def number_of(row: pd.Series[Any], column: str) -> float:
    """A cell as a float; NaN for all that is missing."""
    value = row.get(column)
    return float("nan") if value is None or pd.isna(value) else float(value)


def text_of(row: pd.Series[Any], column: str) -> str:
    """A cell as text; '' for all that is missing."""
    value = row.get(column)
    return "" if value is None or pd.isna(value) else str(value)


def counted(count: int, noun: str) -> str:
    """'1 case', '2 cases'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def evidence_words(rows: pd.DataFrame) -> str:
    """What the rows are: 'measured' (also where they do not say), 'simulated', or both."""
    found = sorted({str(value) for value in present(rows, "evidence")})
    return " and ".join(found) or "measured"


def first_and_more(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def percent(share: float, *, signed: bool = False) -> str:
    """0.034 -> '3.4 %', with a sign where asked for; whole numbers from 10 on."""
    digits = 1 if abs(share) < 0.0995 else 0
    text = f"{share * 100:{'+' if signed else ''}.{digits}f} %"
    return text.replace("-", "−")


def spare_words(margin_bytes: float) -> str:
    """'3.10 GiB to spare' or '410 MiB short'."""
    if margin_bytes >= 0:
        return f"{format_bytes(margin_bytes)} to spare"
    return f"{format_bytes(-margin_bytes)} short"


def case_labels(cases: pd.DataFrame) -> pd.Series[str]:
    """What tells the cases apart, in few words: the size, the arm, the limit or the remedy."""
    several = {
        column: len(set(present(cases[cases["experiment"] == "beside"], column))) > 1
        for column in ("whisper_backend", "whisper_dtype")
    }
    sizes = len(set(present(cases[cases["experiment"] == "race"], "whisper_size"))) > 1
    words = [_case_words(row, several, sizes) for _, row in cases.iterrows()]
    return pd.Series(words, index=cases.index, dtype=str)


def _case_words(row: pd.Series[Any], several: dict[str, bool], sizes: bool) -> str:
    experiment, size = text_of(row, "experiment"), text_of(row, "whisper_size")
    if experiment == "beside":
        extra = [text_of(row, column) for column, vary in several.items() if vary]
        return " ".join([size or "no Whisper", *extra])
    if experiment == "limits" and text_of(row, "limit_kind"):
        return limit_words(text_of(row, "limit_kind"), float(row["limit_value"]))
    if experiment == "ageing" and text_of(row, "remedy"):
        return f"{text_of(row, 'strategy')}, remedy {text_of(row, 'remedy')}"
    known = {
        "baseline": "Voxtral alone",
        "alone": "each by itself",
        "loading": f"{size} {text_of(row, 'load_order')} {text_of(row, 'load_path')}",
        "quality": f"{size or text_of(row, 'voxtral')} by itself",
        "edge": f"edge: {text_of(row, 'ask')}, {arm_label(row)}",
        "attention": f"attention {text_of(row, 'attention')}",
    }
    return known.get(experiment, arm_label(row) + (f" {size}" if sizes and size else ""))


def limit_words(kind: str, value: float) -> str:
    """'120 s of audio' or 'batch of 4'."""
    return f"{value:g} s of audio" if kind == "audio_s" else f"batch of {value:g}"


def arm_label(row: pd.Series[Any]) -> str:
    """'sequential plain'; a tenant alone is 'whisper by itself'."""
    strategy, variant = text_of(row, "strategy"), text_of(row, "variant")
    if strategy == "alone":
        return f"{variant} by itself"
    return f"{strategy} {variant}".strip()


def arm_words(name: str) -> str:
    """An arm as every figure calls it: 'sequential / plain' is 'sequential plain'."""
    return name.replace(" / ", " ")


def worst_per_label(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per label, by strategy and size: of repeated cases the one with the highest peak, a
    measured one before one that was not."""
    labelled = cases.assign(label=case_labels(cases), peak=highest_peak(cases))
    ranked = labelled.sort_values("peak", ascending=False, na_position="last", kind="stable")
    return ordered(labelled.loc[ranked.drop_duplicates("label").index.sort_values()])


def highest_peak(cases: pd.DataFrame) -> pd.Series[float]:
    """The higher of load peak and request peak, in bytes."""
    peaks = pd.concat(
        [numbers(cases, "load_peak_bytes"), numbers(cases, "request_peak_bytes")], axis=1
    )
    return peaks.max(axis=1)


def status_words(row: pd.Series[Any]) -> str:
    """A case's status in words: 'out of memory' for oom."""
    status = text_of(row, "status")
    return {"oom": "out of memory", "": "no status"}.get(status, status)


def failure_words(row: pd.Series[Any]) -> str:
    """'skipped: needs 7.2 GiB …'; '' for a case that is ok."""
    if text_of(row, "status") == "ok":
        return ""
    return f"{status_words(row)}: {text_of(row, 'reason') or 'no reason recorded'}"
