"""Figures of measured bytes: by owner, and at three moments. Axes in GiB."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlab.catalog.device_names import simulated_card
from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import MOMENT_LOOK, MUTED
from hybridlab.units import GIB, format_bytes

Moment = Literal["load_peak", "steady", "request_peak"]
MOMENT_WORDS = {
    "load_peak": "load peak",
    "steady": "idle",
    "request_peak": "request peak",
}
_UNREAD = "ok, but without a memory reading"


@style.styled(cases=("experiment", "status"))
def memory_bars(cases: pd.DataFrame, *, moment: Moment = "request_peak") -> Figure:
    """Bytes of each case at one moment, stacked by owner, against the device's capacity.

    Of repeated cases the one with the highest peak is drawn; cases without a measurement are rows
    of text with their reason.
    """
    if cases.empty:
        return style.nothing_to_show("No case was measured, so there is no memory to show.")
    rows = wording.worst_per_label(cases)
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    stacks = [case_stack(row, moment) for _, row in rows.iterrows()]
    marks.draw_stacks(ax, stacks)
    marks.name_rows(ax, list(rows["label"]))
    longest = max(sum(stack.values()) for stack in stacks)
    if longest > 0:
        marks.draw_capacity(ax, wording.numbers(rows, "capacity_bytes").dropna(), longest)
    for y, (stack, (_, row)) in enumerate(zip(stacks, rows.iterrows(), strict=True)):
        if stack:
            marks.note_column(ax, [(y, _note(sum(stack.values()), row))])
        else:
            marks.text_row(ax, y, wording.failure_words(row) or _UNREAD)
    ax.set_xlabel(f"memory, {MOMENT_WORDS[moment]} (GiB)")
    marks.legend_below(ax, handles=marks.owner_handles(stacks))
    measured = sum(bool(stack) for stack in stacks)
    words = caption(
        cases,
        cases,
        n=f"{measured} {wording.evidence_words(rows)} of {len(rows)}",
        interval=_interval_words(cases, rows),
        sampled=True,
    )
    return style.finish(figure, simulated_words(rows) + memory_finding(rows), words)


def _interval_words(cases: pd.DataFrame, rows: pd.DataFrame) -> str:
    if len(cases) > len(rows):
        return f"no interval: the highest of {len(cases)} cases for each row"
    return "no interval: one case for each row"


def case_stack(row: pd.Series[Any], moment: Moment) -> dict[str, float]:
    """Bytes by owner that sum to the moment's reading; empty where there is none."""
    total = wording.number_of(row, f"{moment}_bytes")
    if wording.text_of(row, "status") not in ("ok", "oom") or not total > 0:
        return {}
    steady = min(_or_zero(wording.number_of(row, "steady_bytes")), total)
    above = total - steady if moment == "request_peak" and steady > 0 else 0.0
    resident = total - above
    stack: dict[str, float] = {}
    columns = {owner: f"{owner}_bytes" for owner in ("base", "voxtral", "whisper")}
    if wording.text_of(row, "device") == "cpu":  # on a GPU contexts are beside the reading
        columns |= {"server": "server_overhead_bytes", "gateway": "gateway_bytes"}
    for owner, column in columns.items():
        # pages of weights that are not touched yet are not resident on a CPU
        n_bytes = _or_zero(wording.number_of(row, column))
        stack[owner] = min(n_bytes, resident - sum(stack.values()))
    stack["load" if moment == "load_peak" else "unexplained"] = resident - sum(stack.values())
    return {**stack, "request": above}


def _or_zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _note(total: float, row: pd.Series[Any]) -> str:
    margin = wording.number_of(row, "margin_bytes")
    if wording.text_of(row, "status") == "oom":
        return f"out of memory\nat {format_bytes(total)}"
    words = format_bytes(total)
    if np.isfinite(margin):
        words += f"\n{wording.spare_words(margin)}"
    return words


def memory_finding(rows: pd.DataFrame) -> str:
    """'medium fits with 3.10 GiB to spare', of the largest case that is ok."""
    labelled = rows.assign(label=wording.case_labels(rows), peak=wording.highest_peak(rows))
    fine = labelled[(labelled["status"] == "ok") & labelled["peak"].notna()]
    if fine.empty:
        return f"Not one of {wording.counted(len(rows), 'case')} could be measured"
    top = fine.iloc[int(fine["peak"].to_numpy().argmax())]
    margin = wording.number_of(top, "margin_bytes")
    words = f"{top['label']} peaks at {format_bytes(top['peak'])}"
    if np.isfinite(margin):
        words = f"{top['label']} fits with {wording.spare_words(margin)}"
        if margin < 0:
            words = f"{top['label']} ran, yet is {wording.spare_words(margin)} of what others leave"
    if len(fine) > 1:
        words += f", the largest of {len(fine)} that ran"
    lost = len(labelled) - len(fine)
    return words + (f"; {lost} could not be measured" if lost else "")


# --------------------------------------------------------------------------------- three numbers

#: A dot may stand on an axis that does not begin at zero: this share of the lowest is left out.
_LEFT_OUT = 0.85
#: Above the row's middle, on it and below it: load peak, idle, request peak.
_LIFTS = (-0.24, 0.0, 0.24)


@style.styled(cases=("experiment", "status"))
def three_numbers(cases: pd.DataFrame) -> Figure:
    """Load peak, idle and request peak of each case against the device's capacity, in GiB: in use
    as a filled mark, and where the rows know it what the allocator holds for that as an open one.
    """
    rows = wording.worst_per_label(cases) if len(cases) else cases
    used, held = (_moments(rows, suffix) for suffix in ("bytes", "reserved_bytes"))
    highest = float(np.nanmax([used.max().max(), held.max().max(), -1.0]))
    if not highest > 0:
        return style.nothing_to_show("No case has a load peak, steady state or request peak.")
    figure, ax = style.new_axes(style.rows_height(len(rows), each_in=0.62))
    for y, (_, row) in enumerate(rows.iterrows()):
        _draw_moments(ax, y, row, used.iloc[y], held.iloc[y])
    marks.name_rows(ax, list(rows["label"]))
    ax.set_xlim(_LEFT_OUT * float(used.min().min()) / GIB, highest / GIB * 1.05)
    marks.draw_capacity(ax, wording.numbers(rows, "capacity_bytes").dropna(), highest)
    marks.note_column(ax, [(y, _spare(row)) for y, (_, row) in enumerate(rows.iterrows())])
    ax.set_xlabel("memory (GiB)")
    look: dict[str, Any] = {"linestyle": "", "markersize": 10}
    handles = [
        Line2D([], [], marker=m, color=c, label=MOMENT_WORDS[moment], **look)
        for moment, (m, c) in MOMENT_LOOK.items()
    ]
    if held.notna().any(axis=None):
        open_mark: dict[str, Any] = {"markerfacecolor": "white", "color": MUTED, **look}
        handles.append(Line2D([], [], marker="s", label="open: held by the allocator", **open_mark))
    marks.legend_below(ax, handles=handles)
    words = caption(
        cases,
        cases,
        n=wording.counted(len(rows), "case"),
        interval=_interval_words(cases, rows),
        sampled=True,
    )
    return style.finish(figure, _three_finding(rows), words)


def _moments(rows: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """A column for each moment."""
    return pd.DataFrame({m: wording.numbers(rows, f"{m}_{suffix}") for m in MOMENT_LOOK})


def _draw_moments(
    ax: Axes, y: float, row: pd.Series[Any], used: pd.Series[float], held: pd.Series[float]
) -> None:
    if used.isna().all():
        marks.text_row(ax, y, wording.failure_words(row) or _UNREAD)
        return
    for lift, (moment, (marker, colour)) in zip(_LIFTS, MOMENT_LOOK.items(), strict=True):
        ends = used[moment] / GIB, held[moment] / GIB
        ax.plot(ends, [y + lift] * 2, color=colour, linewidth=1.5, zorder=2)
        look: dict[str, Any] = {"markersize": 9, "zorder": 4}
        ax.plot(ends[0], y + lift, marker, color=colour, mec="white", **look)
        ax.plot(ends[1], y + lift, marker, mfc="white", mec=colour, **{**look, "zorder": 3})


def _spare(row: pd.Series[Any]) -> str:
    margin = wording.number_of(row, "margin_bytes")
    return wording.spare_words(margin) if np.isfinite(margin) else ""


def _three_finding(rows: pd.DataFrame) -> str:
    """How many pairs fit, and which leaves least; of a simulated card, that it is one."""
    margins = wording.numbers(rows, "margin_bytes").where(rows["status"] == "ok")
    if not margins.notna().any():
        return _peak_finding(rows)
    fit, count = int((margins >= 0).sum()), wording.counted(len(rows), "pair")
    some = f"all of {count} fit" if fit == len(rows) else f"{fit} of {count} fit"
    tightest, least = rows["label"].iloc[int(np.nanargmin(margins))], float(margins.min())
    words = f"{simulated_words(rows)}{some}; {tightest} is the tightest: "
    return words[:1].upper() + words[1:] + wording.spare_words(least)


def _peak_finding(rows: pd.DataFrame) -> str:
    """Whether loading or serving sets the peaks, where nothing says what is left."""
    load, serve = (wording.numbers(rows, f"{m}_peak_bytes") for m in ("load", "request"))
    both = load.notna() & serve.notna()
    if not both.any():
        return f"None of {wording.counted(len(rows), 'case')} has both peaks, loading and serving"
    loading = int((load > serve)[both].sum())
    if loading == 0:
        gap = (serve - load)[both].max()
        return f"Serving, not loading, sets every peak (by up to {format_bytes(gap)})"
    gap = (load - serve)[both].max()
    return (
        f"Loading sets the peak in {loading} of {wording.counted(int(both.sum()), 'case')} (by up "
        f"to {format_bytes(gap)})"
    )


def simulated_words(rows: pd.DataFrame) -> str:
    """'On a simulated t4, ' where all rows are of one simulated card; '' elsewhere."""
    devices = set(wording.present(rows, "device"))
    card = simulated_card(devices.pop()) if len(devices) == 1 else None
    return f"On a simulated {card.title.removeprefix('NVIDIA ')}, " if card else ""
