"""Figures of bytes: planned pairs and measured cases. Axes in GiB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hybridlab import catalog, planner
from hybridlab.planner import PairPlan
from hybridlab.plots import style, wording
from hybridlab.units import GIB, format_bytes

Moment = Literal["load_peak", "steady", "request_peak"]
MOMENT_WORDS = {
    "load_peak": "peak while loading",
    "steady": "at rest",
    "request_peak": "peak while serving",
}
OWNER_WORDS = {
    "base": "process / context",
    "voxtral": "Voxtral weights",
    "whisper": "Whisper weights",
    "request": "request",
    "load": "loading",
    "unexplained": "other",
}


@style.styled
def plan_bars(plans: Sequence[PairPlan]) -> Figure:
    """Predicted bytes of each pair, stacked by owner, against the card's capacity."""
    if not plans:
        return style.nothing_to_show("No plan was given, so no prediction is drawn.")
    figure, ax = style.new_axes(style.rows_height(len(plans), each_in=0.42))
    stacks = [_plan_stack(plan) for plan in plans]
    _draw_stacks(ax, stacks)
    labels = [f"{plan.whisper} {plan.backend} {plan.dtype}" for plan in plans]
    _name_rows(ax, labels)
    longest = max(plan.total_bytes for plan in plans)
    style.draw_capacity(ax, {plan.capacity_bytes for plan in plans}, longest)
    notes = [
        f"{'✓ fits' if plan.fits else '✗ does not fit'}, {wording.spare_words(plan.margin_bytes)}"
        for plan in plans
    ]
    style.note_column(ax, list(enumerate(notes)))
    _bytes_axis(ax, "predicted memory (GiB)")
    style.legend_below(ax, handles=_owner_handles(stacks))
    dtypes = ", ".join(sorted({plan.voxtral_dtype for plan in plans}))
    cards = ", ".join(sorted({plan.card for plan in plans}))
    n_words = wording.counted(len(plans), "prediction")
    caption = f"n = {n_words}, nothing measured · card {cards} · Voxtral in {dtypes}"
    return style.finish(figure, _plan_finding(plans), caption)


def _plan_stack(plan: PairPlan) -> dict[str, float]:
    voxtral = planner.voxtral_weights_bytes(catalog.voxtral(plan.voxtral), dtype=plan.voxtral_dtype)
    loads = plan.load_peak_bytes >= plan.request_peak_bytes
    return {
        "base": plan.steady_bytes - plan.weights_bytes,
        "voxtral": voxtral,
        "whisper": plan.weights_bytes - voxtral,
        "load" if loads else "request": plan.total_bytes - plan.steady_bytes,
    }


def _plan_finding(plans: Sequence[PairPlan]) -> str:
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        least = min(plans, key=lambda plan: plan.total_bytes)
        return f"No pair is predicted to fit: {least.whisper} is {_spare(least.margin_bytes)}"
    largest = max(fitting, key=lambda plan: plan.total_bytes)
    words = f"{largest.whisper} in {largest.dtype}"
    if len(plans) == 1:
        return f"{words} is predicted to fit with {_spare(largest.margin_bytes)}"
    return (
        f"{len(fitting)} of {len(plans)} pairs are predicted to fit; the largest of them, {words}, "
        f"has {_spare(largest.margin_bytes)}"
    )


def _spare(margin_bytes: float) -> str:
    return wording.spare_words(margin_bytes)


# --------------------------------------------------------------------------------- measured bars


@style.styled
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
    _draw_stacks(ax, stacks)
    _name_rows(ax, list(rows["label"]))
    longest = max((sum(stack.values()) for stack in stacks), default=0.0)
    if longest > 0:
        style.draw_capacity(ax, wording.numbers(rows, "capacity_bytes").dropna(), longest)
    notes = []
    for y, (stack, (_, row)) in enumerate(zip(stacks, rows.iterrows(), strict=True)):
        if stack:
            notes.append((y, _bar_note(sum(stack.values()), row)))
        else:
            _text_row(ax, y, wording.failure_words(row) or "ok, but without a memory reading")
    style.note_column(ax, notes)
    _bytes_axis(ax, f"memory, {MOMENT_WORDS[moment]} (GiB)")
    style.legend_below(ax, handles=_owner_handles(stacks))
    measured = sum(bool(stack) for stack in stacks)
    n_words = f"n = {measured} measured of {len(rows)}"
    if len(cases) > len(rows):
        n_words += f", the highest of {len(cases)} cases each"
    title = memory_finding(rows)
    return style.finish(figure, title, wording.caption_of(cases, n_words))


def case_stack(row: pd.Series[Any], moment: Moment) -> dict[str, float]:
    """Bytes by owner that sum to the moment's reading; empty where there is none."""
    total = wording.number_of(row, f"{moment}_bytes")
    if wording.text_of(row, "status") not in ("ok", "oom") or not total > 0:
        return {}
    steady = min(_or_zero(wording.number_of(row, "steady_bytes")), total)
    above = total - steady if moment == "request_peak" and steady > 0 else 0.0
    resident = total - above
    stack: dict[str, float] = {}
    for owner in ("base", "voxtral", "whisper"):
        # pages of weights that are not touched yet are not resident on a CPU
        stack[owner] = min(
            _or_zero(wording.number_of(row, f"{owner}_bytes")), resident - sum(stack.values())
        )
    stack["load" if moment == "load_peak" else "unexplained"] = resident - sum(stack.values())
    return {**stack, "request": above}


def _or_zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _bar_note(total: float, row: pd.Series[Any]) -> str:
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
        words = f"{top['label']} fits with {_spare(margin)}"
        if margin < 0:
            words = f"{top['label']} ran, yet is {_spare(margin)} of what others leave"
    if len(fine) > 1:
        words += f", the largest of {len(fine)} that ran"
    lost = len(labelled) - len(fine)
    return words + (f"; {lost} could not be measured" if lost else "")


# ------------------------------------------------------------------------------- row-bar helpers


def _draw_stacks(ax: Axes, stacks: Sequence[Mapping[str, float]]) -> None:
    for y, stack in enumerate(stacks):
        left = 0.0
        for owner, n_bytes in stack.items():
            ax.barh(
                y,
                n_bytes / GIB,
                left=left / GIB,
                height=0.62,
                color=style.OWNER_COLOURS[owner],
                hatch=style.OWNER_HATCHES[owner],
                edgecolor="white",
                linewidth=0.5,
                zorder=3,
            )
            left += n_bytes


def _owner_handles(stacks: Sequence[Mapping[str, float]]) -> list[Patch]:
    """Legend entries of the owners that are seen in some bar."""
    seen = {owner for stack in stacks for owner, n_bytes in stack.items() if n_bytes > 0}
    return [
        Patch(
            facecolor=style.OWNER_COLOURS[owner],
            hatch=style.OWNER_HATCHES[owner],
            edgecolor="white",
            label=words,
        )
        for owner, words in OWNER_WORDS.items()
        if owner in seen
    ]


def _name_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_yticks(range(len(labels)), [wording.wrap(label, 32) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def _text_row(ax: Axes, y: float, text: str) -> None:
    ax.text(
        0.01,
        y,
        wording.wrap(text, 60),
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=10,
        color=style.MUTED,
        style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        zorder=6,
    )


def _bytes_axis(ax: Axes, label: str) -> None:
    ax.set_xlim(left=0)
    ax.set_xlabel(label)


# --------------------------------------------------------------------------------- three numbers

_MOMENT_LOOK = {
    "load_peak": ("^", style.OWNER_COLOURS["load"]),
    "steady": ("o", "#333333"),
    "request_peak": ("s", style.OWNER_COLOURS["request"]),
}


@style.styled
def three_numbers(cases: pd.DataFrame) -> Figure:
    """Load peak, steady state and request peak of each case, in GiB."""
    rows = wording.worst_per_label(cases) if len(cases) else cases
    if rows.empty or not wording.highest_peak(rows).notna().any():
        return style.nothing_to_show("No case has a load peak, steady state or request peak.")
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    longest = float(wording.highest_peak(rows).max())
    for y, (_, row) in enumerate(rows.iterrows()):
        values = {
            moment: wording.number_of(row, f"{moment}_bytes") / GIB for moment in _MOMENT_LOOK
        }
        known = [value for value in values.values() if np.isfinite(value)]
        if not known:
            _text_row(ax, y, wording.failure_words(row) or "ok, but without a memory reading")
            continue
        ax.hlines(y, min(known), max(known), color="#bbbbbb", linewidth=2.5, zorder=2)
        for lift, (moment, (marker, colour)) in zip(
            (-0.2, 0.0, 0.2), _MOMENT_LOOK.items(), strict=True
        ):
            ax.plot(
                values[moment], y + lift, marker, color=colour, markersize=10, zorder=4, mec="white"
            )
    _name_rows(ax, list(rows["label"]))
    style.draw_capacity(ax, wording.numbers(rows, "capacity_bytes").dropna(), longest)
    _bytes_axis(ax, "memory (GiB)")
    ax.set_xlim(right=max(ax.get_xlim()[1], longest / GIB * 1.05))
    handles = [
        Line2D([], [], marker=m, color=c, linestyle="", markersize=10, label=MOMENT_WORDS[moment])
        for moment, (m, c) in _MOMENT_LOOK.items()
    ]
    style.legend_below(ax, handles=handles)
    caption = wording.caption_of(cases, f"n = {len(rows)} cases")
    return style.finish(figure, _three_finding(rows), caption)


def _three_finding(rows: pd.DataFrame) -> str:
    load, serve = (wording.numbers(rows, f"{m}_peak_bytes") for m in ("load", "request"))
    both = load.notna() & serve.notna()
    if not both.any():
        return "Load peak, rest and request peak, as far as they were measured"
    loading = int((load > serve)[both].sum())
    gap = (load - serve)[both].abs().max()
    if loading == 0:
        return f"Serving, not loading, sets every peak (by up to {format_bytes(gap)})"
    return f"Loading sets the peak in {loading} of {int(both.sum())} cases (by up to " + (
        f"{format_bytes((load - serve)[both].max())})"
    )
