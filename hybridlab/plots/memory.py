"""Figures of bytes: planned, measured, predicted against measured, over time. Axes in GiB."""

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
from hybridlab.plots import lanes, style
from hybridlab.units import GIB, MIB, format_bytes

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
        f"{'✓ fits' if plan.fits else '✗ does not fit'}, {style.spare_words(plan.margin_bytes)}"
        for plan in plans
    ]
    style.note_column(ax, list(enumerate(notes)))
    _bytes_axis(ax, "predicted memory (GiB)")
    style.legend_below(ax, handles=_owner_handles(stacks))
    dtypes = ", ".join(sorted({plan.voxtral_dtype for plan in plans}))
    cards = ", ".join(sorted({plan.card for plan in plans}))
    n_words = style.counted(len(plans), "prediction")
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
    return style.spare_words(margin_bytes)


# --------------------------------------------------------------------------------- measured bars


@style.styled
def memory_bars(cases: pd.DataFrame, *, moment: Moment = "request_peak") -> Figure:
    """Bytes of each case at one moment, stacked by owner, against the device's capacity.

    Of repeated cases the one with the highest peak is drawn; cases without a measurement are rows
    of text with their reason.
    """
    if cases.empty:
        return style.nothing_to_show("No case was measured, so there is no memory to show.")
    rows = style.worst_per_label(cases)
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    stacks = [_case_stack(row, moment) for _, row in rows.iterrows()]
    _draw_stacks(ax, stacks)
    _name_rows(ax, list(rows["label"]))
    longest = max((sum(stack.values()) for stack in stacks), default=0.0)
    if longest > 0:
        style.draw_capacity(ax, style.numbers(rows, "capacity_bytes").dropna(), longest)
    notes = []
    for y, (stack, (_, row)) in enumerate(zip(stacks, rows.iterrows(), strict=True)):
        if stack:
            notes.append((y, _bar_note(sum(stack.values()), row)))
        else:
            _text_row(ax, y, style.failure_words(row) or "ok, but without a memory reading")
    style.note_column(ax, notes)
    _bytes_axis(ax, f"memory, {MOMENT_WORDS[moment]} (GiB)")
    style.legend_below(ax, handles=_owner_handles(stacks))
    measured = sum(bool(stack) for stack in stacks)
    n_words = f"n = {measured} measured of {len(rows)}"
    if len(cases) > len(rows):
        n_words += f", the highest of {len(cases)} cases each"
    title = memory_finding(rows)
    return style.finish(figure, title, style.caption_of(cases, n_words))


def _case_stack(row: pd.Series[Any], moment: Moment) -> dict[str, float]:
    """Bytes by owner that sum to the moment's reading; empty where there is none."""
    total = _number(row, f"{moment}_bytes")
    if style.text_of(row, "status") not in ("ok", "oom") or not total > 0:
        return {}
    steady = min(_or_zero(_number(row, "steady_bytes")), total)
    above = total - steady if moment == "request_peak" and steady > 0 else 0.0
    resident = total - above
    stack: dict[str, float] = {}
    for owner in ("base", "voxtral", "whisper"):
        # pages of weights that are not touched yet are not resident on a CPU
        stack[owner] = min(_or_zero(_number(row, f"{owner}_bytes")), resident - sum(stack.values()))
    stack["load" if moment == "load_peak" else "unexplained"] = resident - sum(stack.values())
    return {**stack, "request": above}


def _number(row: pd.Series[Any], column: str) -> float:
    value = row.get(column)
    return float("nan") if value is None or pd.isna(value) else float(value)


def _or_zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def _bar_note(total: float, row: pd.Series[Any]) -> str:
    margin = _number(row, "margin_bytes")
    if style.text_of(row, "status") == "oom":
        return f"out of memory\nat {format_bytes(total)}"
    words = format_bytes(total)
    if np.isfinite(margin):
        words += f"\n{style.spare_words(margin)}"
    return words


def memory_finding(rows: pd.DataFrame) -> str:
    """'medium fits with 3.10 GiB to spare', of the largest case that is ok."""
    labelled = rows.assign(label=style.case_labels(rows), peak=style.highest_peak(rows))
    fine = labelled[(labelled["status"] == "ok") & labelled["peak"].notna()]
    if fine.empty:
        return f"Not one of {style.counted(len(rows), 'case')} could be measured"
    top = fine.iloc[int(fine["peak"].to_numpy().argmax())]
    margin = _number(top, "margin_bytes")
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
    ax.set_yticks(range(len(labels)), [style.wrap(label, 32) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def _text_row(ax: Axes, y: float, text: str) -> None:
    ax.text(
        0.01,
        y,
        style.wrap(text, 60),
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
    rows = style.worst_per_label(cases) if len(cases) else cases
    if rows.empty or not style.highest_peak(rows).notna().any():
        return style.nothing_to_show("No case has a load peak, steady state or request peak.")
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    longest = float(style.highest_peak(rows).max())
    for y, (_, row) in enumerate(rows.iterrows()):
        values = {moment: _number(row, f"{moment}_bytes") / GIB for moment in _MOMENT_LOOK}
        known = [value for value in values.values() if np.isfinite(value)]
        if not known:
            _text_row(ax, y, style.failure_words(row) or "ok, but without a memory reading")
            continue
        ax.hlines(y, min(known), max(known), color="#bbbbbb", linewidth=2.5, zorder=2)
        for lift, (moment, (marker, colour)) in zip(
            (-0.2, 0.0, 0.2), _MOMENT_LOOK.items(), strict=True
        ):
            ax.plot(
                values[moment], y + lift, marker, color=colour, markersize=10, zorder=4, mec="white"
            )
    _name_rows(ax, list(rows["label"]))
    style.draw_capacity(ax, style.numbers(rows, "capacity_bytes").dropna(), longest)
    _bytes_axis(ax, "memory (GiB)")
    ax.set_xlim(right=max(ax.get_xlim()[1], longest / GIB * 1.05))
    handles = [
        Line2D([], [], marker=m, color=c, linestyle="", markersize=10, label=MOMENT_WORDS[moment])
        for moment, (m, c) in _MOMENT_LOOK.items()
    ]
    style.legend_below(ax, handles=handles)
    caption = style.caption_of(cases, f"n = {len(rows)} cases")
    return style.finish(figure, _three_finding(rows), caption)


def _three_finding(rows: pd.DataFrame) -> str:
    load, serve = (style.numbers(rows, f"{m}_peak_bytes") for m in ("load", "request"))
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


# ------------------------------------------------------------------- predicted against measured

_POINT_LOOK = {
    "voxtral weights": ("voxtral", "o"),
    "whisper weights": ("whisper", "s"),
    "request": ("request", "^"),
    "whole case": ("base", "D"),
}
MOST_LABELS = 24


@style.styled
def predicted_against_measured(ledgers: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """The planner's bytes against the measured ones, on logarithmic axes with the diagonal."""
    points = prediction_points(ledgers, cases)
    if points.empty:
        return style.nothing_to_show("No owner has both a predicted and a measured size.")
    figure, ax = style.new_axes(6.0)
    ends = [
        points[["predicted", "measured"]].to_numpy().min() * 0.6,
        points[["predicted", "measured"]].to_numpy().max() * 1.7,
    ]
    ax.plot(ends, ends, color="#888888", linestyle="--", linewidth=1.2, zorder=1)
    for owner, group in points.groupby("owner"):
        colour, marker = _POINT_LOOK[str(owner)]
        ax.plot(
            group["predicted"],
            group["measured"],
            marker,
            color=style.OWNER_COLOURS[colour],
            markersize=10,
            mec="white",
            label=str(owner),
            zorder=3,
        )
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set_xlabel("predicted (GiB)")
    ax.set_ylabel("measured (GiB)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    worst_first = points.reindex(points["error"].abs().sort_values(ascending=False).index)
    top = worst_first.iloc[0]
    title = (
        f"Predictions are {style.percent(points['error'].abs().median())} off at the median; "
        f"at worst {_error_words(top['error'])} ({top['owner']}, {top['label']})"
    )
    caption = style.caption_of(
        cases, f"n = {len(points)} sizes, labelled with the measured one against the predicted"
    )
    style.legend_below(ax)
    style.finish(figure, title, caption)
    _label_errors(figure, ax, worst_first.head(MOST_LABELS))
    return figure


def _error_words(error: float) -> str:
    """'+3.4 %', and '×15' where the measured size is more than twice the predicted."""
    return style.percent(error, signed=True) if error <= 1 else f"×{1 + error:.3g}"


def prediction_points(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of owner, label, predicted and measured (GiB) and error; equal ones once."""
    labels = style.case_labels(cases) if len(cases) else pd.Series(dtype=str)
    names = dict(zip(cases.get("case_id", []), labels, strict=False))
    rows: list[dict[str, Any]] = []
    for _, row in ledgers.iterrows() if "owner" in ledgers else ():
        if row["moment"] == "request_peak" and row["owner"] in _POINT_LOOK:
            rows.append(
                {
                    "owner": row["owner"],
                    "label": names.get(row["case_id"], row["case_id"]),
                    "predicted": _number(row, "predicted_bytes") / GIB,
                    "measured": _number(row, "bytes") / GIB,
                }
            )
    for label, (_, case) in zip(labels, cases.iterrows(), strict=True):
        peak = _number(case, "request_peak_bytes") / GIB
        predicted = _number(case, "predicted_bytes") / GIB
        rows.append(
            {"owner": "whole case", "label": label, "predicted": predicted, "measured": peak}
        )
    points = pd.DataFrame(rows, columns=["owner", "label", "predicted", "measured"]).dropna()
    points = points[(points["predicted"] > 0) & (points["measured"] > 0)]
    # repeated cases: one point per owner, label and prediction, at the median measurement
    merged = points.groupby(["owner", "label", "predicted"], sort=False, as_index=False).median()
    merged = merged.assign(rounded=(merged["measured"] * GIB / MIB).round(-1))
    merged = merged.drop_duplicates(["owner", "predicted", "rounded"]).drop(columns="rounded")
    return merged.assign(error=merged["measured"] / merged["predicted"] - 1)


def _label_errors(figure: Figure, ax: Axes, points: pd.DataFrame) -> None:
    """Write each error beside its dot where it covers neither a dot nor another label."""
    figure.draw_without_rendering()  # places are known only after the layout
    dots = ax.transData.transform(points[["predicted", "measured"]].to_numpy())
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in dots]
    scale = figure.dpi / 72
    for (x, y), (_, point) in zip(dots, points.iterrows(), strict=True):
        text = _error_words(point["error"])
        width, height = 7.0 * len(text) * scale, 13 * scale
        for dx, dy in _OFFSETS:
            left, low = x + dx * scale - (width if dx < 0 else 0), y + dy * scale - height / 2
            box = (left, low, left + width, low + height)
            inside = ax.bbox.x0 < left and left + width < ax.bbox.x1
            if inside and not any(_touch(box, other) for other in taken):
                taken.append(box)
                ax.annotate(
                    text,
                    (point["predicted"], point["measured"]),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha="right" if dx < 0 else "left",
                    va="center",
                    fontsize=10.5,
                )
                break


#: Where a label may stand in points from its dot, the best place first.
_OFFSETS = tuple((side * dx, dy) for dx, dy in ((9, 0), (7, -13), (7, 13)) for side in (1, -1))


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ------------------------------------------------------------------------------------- over time


@style.styled
def memory_over_time(
    samples: pd.DataFrame,
    spans: pd.DataFrame,
    *,
    case_id: str,
    capacity_bytes: float | None = None,
) -> Figure:
    """The sampled curve of one case above a lane of the tenants' phases."""
    own = samples[samples["case_id"] == case_id] if len(samples) else samples
    if len(own):
        own = own[own["source"] != "after-cycle"].sort_values("t_s")
    if own.empty:
        return style.nothing_to_show(f"No memory was sampled for the case {case_id}.")
    figure = style.new_figure(5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.25))
    t_s, used = style.numbers(own, "t_s").to_numpy(), style.numbers(own, "bytes").to_numpy() / GIB
    top.plot(t_s, used, color="#222222", linewidth=1.6)
    top.fill_between(t_s, used, color="#222222", alpha=0.07)
    peak = int(np.argmax(used))
    top.plot(t_s[peak], used[peak], "v", color=style.OWNER_COLOURS["request"], markersize=10)
    top.set_ylim(0, used.max() * 1.16)
    top.set_ylabel("memory in use (GiB)")
    if capacity_bytes:
        style.draw_capacity(top, [capacity_bytes], used.max() * GIB, vertical=False)
    mine = spans[spans["case_id"] == case_id] if len(spans) else spans
    lanes.draw_lanes(below, mine)
    below.set_xlabel("time since the case began (s)")
    style.legend_below(top, handles=lanes.phase_handles(mine), columns=7)
    during = lanes.phase_at(mine, float(t_s[peak]))
    title = f"Memory peaks at {format_bytes(used[peak] * GIB)} after {t_s[peak]:.3g} s{during}"
    words = f"{case_id} · n = {len(own)} readings of {own['source'].iloc[0]}, thinned"
    return style.finish(figure, title, style.caption_of(None, words, style.device_words(own)))
