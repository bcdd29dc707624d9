"""Figures of bytes, measured by owner and at three moments. Axes in GiB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.case_status import WITH_BYTES
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import memory_finding, simulated_words
from hybridlab.reporting.labels import number_of, text_of
from hybridlab.reporting.memory_stack import closed_stack, longest
from hybridlab.reporting.palette import MOMENT_LOOK, MUTED
from hybridlab.reporting.rows import evidence_of, worst_per_label
from hybridlab.units import GIB, counted, format_bytes

_UNREAD = "ok, but without a memory reading"


@theme.styled()
def memory_bars(cases: pd.DataFrame, *, moment: str = "request_peak") -> Figure:
    """Bytes of each case at one moment, stacked by owner, against the device's capacity.

    Of repeated cases the one with the highest peak is drawn; cases without a measurement are rows
    of text with their reason.
    """
    if cases.empty:
        return theme.nothing_to_show("No case was measured, so there is no memory to show.")
    rows = worst_per_label(cases)
    stacks = [case_stack(row, moment) for _, row in rows.iterrows()]
    figure, ax = theme.new_axes(theme.rows_height(len(rows)))
    elements.draw_stacks(ax, stacks)
    elements.name_rows(ax, list(rows["label"]))
    if longest(stacks) > 0:
        elements.draw_capacity(ax, numbers(rows, "capacity_bytes").dropna(), longest(stacks))
    for y, (stack, (_, row)) in enumerate(zip(stacks, rows.iterrows(), strict=True)):
        if stack:
            elements.note_column(ax, [(y, _note(sum(stack.values()), row))])
        else:
            elements.text_row(ax, y, labels.failure(row) or _UNREAD)
    ax.set_xlabel(f"memory, {labels.MOMENTS[moment]} (GiB)")
    elements.stack_legend(ax, stacks)
    return theme.captioned(
        figure,
        simulated_words(rows) + memory_finding(rows),
        cases,
        cases,
        n=f"{sum(map(bool, stacks))} {evidence_of(rows)} of {len(rows)}",
        interval=_interval(cases, rows),
        sampled=True,
    )


def _interval(cases: pd.DataFrame, rows: pd.DataFrame) -> str:
    if len(cases) > len(rows):
        return f"no interval: the highest of {len(cases)} cases for each row"
    return "no interval: one case for each row"


def case_stack(row: pd.Series[Any], moment: str) -> dict[str, float]:
    """Bytes by owner that sum to the moment's reading; empty where there is none."""
    total = number_of(row, f"{moment}_bytes")
    if text_of(row, "status") not in (*WITH_BYTES, "oom") or not total > 0:
        return {}
    # a case that ran out of memory was never warm
    readings = (number_of(row, name) for name in ("idle_bytes", "loaded_bytes"))
    idle = min(next(filter(np.isfinite, readings), 0.0), total)
    above = total - idle if moment == "request_peak" and idle > 0 else 0.0
    columns = {
        "base": "process_baseline_bytes",
        "llm": "llm_weights_bytes",
        "asr": "asr_weights_bytes",
    }
    if text_of(row, "device") == "cpu":  # on a GPU contexts are beside the reading
        columns |= {"server": "server_overhead_bytes", "gateway": "gateway_bytes"}
    known = {owner: float(np.nan_to_num(number_of(row, name))) for owner, name in columns.items()}
    rest = "load" if moment == "load_peak" else "unattributed"
    return {**closed_stack(total - above, known, rest=rest), "request": above}


def _note(total: float, row: pd.Series[Any]) -> str:
    if text_of(row, "status") == "oom":
        return f"out of memory\nat {format_bytes(total)}"
    return f"{format_bytes(total)}\n{_spare(row)}".strip()


def _spare(row: pd.Series[Any]) -> str:
    margin = number_of(row, "margin_bytes")
    return labels.spare(margin) if np.isfinite(margin) else ""


# --------------------------------------------------------------------------------- three numbers

#: A dot may stand on an axis that does not begin at zero: this share of the lowest is left out.
_LEFT_OUT = 0.85
#: Above the row's middle, on it and below it: load peak, idle, request peak.
_LIFTS = (-0.24, 0.0, 0.24)


@theme.styled()
def three_numbers(cases: pd.DataFrame) -> Figure:
    """Load peak, idle and request peak of each case against the device's capacity, in GiB: in use
    as a filled mark, and where the rows know it what the allocator holds for that as an open one.
    """
    rows = worst_per_label(cases)
    used, held = (_moments(rows, suffix) for suffix in ("bytes", "reserved_bytes"))
    highest = float(np.nanmax([used.max().max(), held.max().max(), -1.0]))
    if not highest > 0:
        return theme.nothing_to_show("No case has a load peak, idle state or request peak.")
    figure, ax = theme.new_axes(theme.rows_height(len(rows), each_in=0.62))
    for y, (_, row) in enumerate(rows.iterrows()):
        _draw_moments(ax, y, row, used.iloc[y], held.iloc[y])
    elements.name_rows(ax, list(rows["label"]))
    ax.set_xlim(_LEFT_OUT * float(used.min().min()) / GIB, highest / GIB * 1.05)
    elements.draw_capacity(ax, numbers(rows, "capacity_bytes").dropna(), highest)
    elements.note_column(ax, enumerate(_spare(row) for _, row in rows.iterrows()))
    ax.set_xlabel("memory (GiB)")
    elements.legend_below(ax, handles=_handles(reserved=bool(held.notna().any(axis=None))))
    n = counted(len(rows), "case")
    interval = _interval(cases, rows)
    title = _three_finding(rows)
    return theme.captioned(figure, title, cases, cases, n=n, interval=interval, sampled=True)


def _moments(rows: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """A column for each moment."""
    return pd.DataFrame({m: numbers(rows, f"{m}_{suffix}") for m in MOMENT_LOOK})


def _draw_moments(
    ax: Axes, y: float, row: pd.Series[Any], used: pd.Series[float], held: pd.Series[float]
) -> None:
    if used.isna().all():
        elements.text_row(ax, y, labels.failure(row) or _UNREAD)
        return
    for lift, (moment, (colour, marker)) in zip(_LIFTS, MOMENT_LOOK.items(), strict=True):
        ends = used[moment] / GIB, held[moment] / GIB
        ax.plot(ends, [y + lift] * 2, color=colour, linewidth=1.5, zorder=2)
        ax.plot(ends[1], y + lift, marker, mfc="white", mec=colour, markersize=9, zorder=3)
        ax.plot(ends[0], y + lift, marker, color=colour, mec="white", markersize=9, zorder=4)


def _handles(*, reserved: bool) -> list[Line2D]:
    look: dict[str, Any] = {"linestyle": "", "markersize": 10}
    handles = [
        Line2D([], [], marker=marker, color=colour, label=labels.MOMENTS[moment], **look)
        for moment, (colour, marker) in MOMENT_LOOK.items()
    ]
    if reserved:
        look |= {"marker": "s", "markerfacecolor": "white", "color": MUTED}
        handles.append(Line2D([], [], label="open: held by the allocator", **look))
    return handles


def _three_finding(rows: pd.DataFrame) -> str:
    """How many pairs fit, and which leaves least; of a simulated card, that it is one."""
    margins = numbers(rows, "margin_bytes").where(rows["status"].isin(WITH_BYTES))
    if not margins.notna().any():
        return memory_finding(rows)
    fit, count = int((margins >= 0).sum()), counted(len(rows), "pair")
    some = f"all of {count} fit" if fit == len(rows) else f"{fit} of {count} fit"
    tightest, least = rows["label"].iloc[int(np.nanargmin(margins))], float(margins.min())
    words = f"{simulated_words(rows)}{some}; {tightest} is the tightest: {labels.spare(least)}"
    return labels.capital(words)
