"""The small print under every figure: n, interval, weights, sampling, device, memory limit."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.reporting.figures import theme
from hybridlab.reporting.rows import present
from hybridlab.units import format_seconds

BOOTSTRAP = "bootstrap 95 % interval"
MEMORY_LIMITED = "inside a memory limit (bytes speak for the smaller card, times do not)"


def captioned(
    figure: Figure, title: str, rows: pd.DataFrame, cases: pd.DataFrame | None, **words: Any
) -> Figure:
    """The figure with its finding above and its `caption` below."""
    return theme.finish(figure, title, caption(rows, cases, **words))


def caption(
    rows: pd.DataFrame,
    cases: pd.DataFrame | None,
    *,
    n: str,
    interval: str,
    notes: tuple[str, ...] = (),
    sampled: bool = False,
) -> str:
    """All that a figure's numbers need beside them.

    rows: what is drawn, of any table.
    cases: the table of cases, whose rows say where the weights come from; None where it is not at
        hand, and the caption says so.
    n: what was counted.
    interval: what the bars or brackets mean, or why there are none.
    sampled: whether the bytes were sampled, so that the interval of the sampler counts.
    """
    own = pd.DataFrame()
    if cases is not None and "case_id" in rows:
        own = cases[cases["case_id"].isin(rows["case_id"].unique())]
    words = [f"n = {n}", interval, *notes, _weights(own)]
    words += [_sampling(own)] if sampled else []
    words += [_device(own if len(own) else rows)]
    # the no-break space keeps the dot at the end of a line
    return "\N{NO-BREAK SPACE}· ".join(word for word in words if word)


def _weights(cases: pd.DataFrame) -> str:
    found = {
        role: sorted({str(source) for source in present(cases, f"{role}_weights")})
        for role in ("llm", "asr")
    }
    words = [f"{role} {'/'.join(sources)}" for role, sources in found.items() if sources]
    return f"weights: {', '.join(words) or 'not recorded'}"


def _sampling(cases: pd.DataFrame) -> str:
    intervals = present(cases, "sampler_interval_s")
    if intervals.empty:
        return ""
    words = f"sampled every {format_seconds(float(intervals.median()))}"
    gaps = present(cases, "sampler_longest_gap_s")
    return words + (f" (longest gap {format_seconds(float(gaps.max()))})" if len(gaps) else "")


def _device(table: pd.DataFrame) -> str:
    """'device cpu, no memory limit' as far as the rows say."""
    names = sorted({str(name) for name in present(table, "device")})
    inside = (
        MEMORY_LIMITED if present(table, "memory_limited").astype(bool).any() else "no memory limit"
    )
    return f"device {', '.join(names) or 'not recorded'}, {inside}"
