"""Figures of points with words beside them: predicted against measured bytes, and what a better
text costs in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import quality_finding
from hybridlab.reporting.palette import GUIDE, MODEL_MARKERS, MUTED, OWNER_COLOURS, PREDICTED_LOOK
from hybridlab.reporting.rows import case_labels
from hybridlab.reporting.tables import RULE, Quality, qualities
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GIB, MIB, format_number

_LABEL_POINTS = 11
_MOST_LABELS = 24

# ------------------------------------------------------------------------- predicted and measured


@theme.styled()
def predicted_against_measured(ledgers: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """The planner's bytes against the measured ones in GiB, on logarithmic axes with the
    diagonal."""
    points = prediction_points(ledgers, cases)
    if points.empty:
        return theme.nothing_to_show("No owner has both a predicted and a measured size.")
    figure, ax = theme.new_axes(6.0)
    sizes = points[["predicted", "measured"]].to_numpy()
    ends = [sizes.min() * 0.6, sizes.max() * 1.7]
    ax.plot(ends, ends, color=GUIDE, linestyle="--", linewidth=1.2, zorder=1)
    for owner, (colour, marker) in PREDICTED_LOOK.items():
        own = points[points["owner"] == owner]
        if len(own):
            look: dict[str, Any] = {"color": colour, "markersize": 10, "mec": "white", "zorder": 3}
            name = labels.role_name(owner)
            ax.plot(own["predicted"], own["measured"], marker, label=name, **look)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set(xlabel="predicted (GiB)", ylabel="measured (GiB)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    worst_first = points.sort_values("error", key=abs, ascending=False, kind="stable")
    top = worst_first.iloc[0]
    elements.legend_below(ax)
    theme.captioned(
        figure,
        f"Predictions are {labels.percent(points['error'].abs().median())} off at the median; "
        f"at worst {_error(top['error'])} ({top['owner']}, {top['label']})",
        cases,
        cases,
        n=f"{labels.counted(len(points), 'size')}, labelled with the measured one against the "
        "predicted",
        interval="no interval: repeated cases stand at their median",
        notes=("dashed: as predicted",),
        sampled=True,
    )
    named = [_error(error) for error in worst_first["error"].head(_MOST_LABELS)]
    places = worst_first[["predicted", "measured"]].to_numpy().tolist()
    label_points(ax, places, named, reach=15)
    return figure


def _error(error: float) -> str:
    """'+3.4 %', and '×15' where the measured size is more than twice the predicted."""
    return labels.percent(error, signed=True) if error <= 1 else f"×{1 + error:.3g}"


def prediction_points(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of owner, label, predicted and measured (GiB) and error; equal ones once."""
    names = case_labels(cases)
    by_id = dict(zip(cases["case_id"], names, strict=True))
    owners = ledgers[(ledgers["moment"] == "request_peak") & ledgers["owner"].isin(PREDICTED_LOOK)]
    of_owners = pd.DataFrame(
        {
            "owner": owners["owner"],
            "label": owners["case_id"].map(by_id).fillna(owners["case_id"]),
            "predicted": numbers(owners, "predicted_bytes") / GIB,
            "measured": numbers(owners, "bytes") / GIB,
        }
    )
    of_cases = pd.DataFrame(
        {
            "owner": "whole case",
            "label": names,
            "predicted": numbers(cases, "predicted_bytes") / GIB,
            "measured": numbers(cases, "request_peak_bytes") / GIB,
        }
    )
    points = pd.concat([of_owners, of_cases], ignore_index=True).dropna()
    points = points[(points["predicted"] > 0) & (points["measured"] > 0)]
    # repeated cases: one point per owner, label and prediction, at the median measurement
    merged = points.groupby(["owner", "label", "predicted"], sort=False, as_index=False).median()
    merged = merged.assign(rounded=(merged["measured"] * GIB / MIB).round(-1))
    merged = merged.drop_duplicates(["owner", "predicted", "rounded"]).drop(columns="rounded")
    return merged.assign(error=merged["measured"] / merged["predicted"] - 1)


# --------------------------------------------------------------------------- quality and memory


@theme.styled()
def quality_memory(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A mark per model alone on the reader's clips: the most bytes that it took, its word error
    rate with the interval, and beside it how fast it transcribes."""
    found = [one for one in qualities(trials, cases) if one.peak_bytes > 0]
    if not found:
        return theme.nothing_to_show(
            "No model's text was held against a reference (no quality_models, weights without "
            "text, or clips without a reference)."
        )
    figure, ax = theme.new_axes(4.4)
    unit, name = (GIB, "GiB") if max(one.peak_bytes for one in found) > GIB else (MIB, "MiB")
    for one in found:
        colour, at = OWNER_COLOURS[one.role], one.peak_bytes / unit
        ax.vlines(at, one.wer.low * 100, one.wer.high * 100, color=colour, linewidth=2.2)
        ax.plot(at, one.wer.value * 100, MODEL_MARKERS[one.role], color=colour, ms=11)
    _limits(ax, [one.peak_bytes / unit for one in found])
    ax.set_xlabel(f"memory at the peak, the empty process left out ({name})")
    ax.set_ylabel("word error rate (%)")
    theme.captioned(
        figure,
        quality_finding(found),
        cases[cases["experiment"] == "quality"],
        cases,
        n=f"{labels.counted(max(one.clips for one in found), 'clip')}, each model alone",
        interval=f"bar: {theme.BOOTSTRAP} over clips",
        notes=(_rtfx_note(found, cases), RULE),
        sampled=True,
    )
    places = [(one.peak_bytes / unit, one.wer.value * 100) for one in found]
    label_points(ax, places, [_words(one) for one in found])
    return figure


#: Beyond this ratio of largest to smallest, a linear axis would push the small ones together.
_LOG_RATIO = 8.0


def _limits(ax: Axes, sizes: list[float]) -> None:
    """Room to the right for a label, above for those moved up, below for a mark at zero."""
    smallest, largest = min(sizes), max(sizes)
    if largest > _LOG_RATIO * smallest:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(smallest / 1.4, largest * (largest / smallest) ** 0.5)
    else:
        ax.set_xlim(0, 1.6 * largest)
    top = max(ax.get_ylim()[1], 1.0)
    ax.set_ylim(-0.08 * top, 1.15 * top)


def _rtfx_note(found: list[Quality], cases: pd.DataFrame) -> str:
    if any(one.rtfx.n for one in found):
        return "RTFx: seconds of audio per second of work, median without the first clip"
    return f"no RTFx: {'other processes were at work' if has_clock(cases) else NO_TIMES}"


def _words(one: Quality) -> str:
    """'Whisper pocket-m: best, RTFx 12.3'; no RTFx where others disturbed it."""
    rtfx = f", RTFx {format_number(one.rtfx.value)}" if one.rtfx.n else ""
    return f"{one.name}: {one.word}{rtfx}"


# ---------------------------------------------------------------------------------------- labels


def label_points(
    ax: Axes, points: Sequence[Any], texts: Sequence[str], *, reach: int = 240
) -> None:
    """Words beside points, moved up or down by at most `reach` typographic points until they cover
    no point and no words; a line leads to words that moved far, and words without a place are left
    out. The first texts choose first. Call it when the layout is settled."""
    figure = ax.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # places are known after the layout
    half = 0.6 * _LABEL_POINTS * figure.dpi / 72
    dots = ax.transData.transform(points)
    taken = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in dots]
    for point, words in zip(points, texts, strict=False):
        text = ax.annotate(
            words,
            point,
            xytext=(_LABEL_POINTS, 0),
            textcoords="offset points",
            va="center",
            fontsize=_LABEL_POINTS,
            bbox={"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.8},
        )
        place = _free_place(ax, text.get_window_extent(), taken, reach)
        if place is None:
            text.remove()
            continue
        up, box = place
        text.set_position((_LABEL_POINTS, up))
        taken.append(box)
        if abs(up) > _LABEL_POINTS:
            arrow = {"arrowstyle": "-", "color": MUTED, "lw": 0.8, "shrinkA": 0}
            at = text.get_position()
            ax.annotate("", point, xytext=at, textcoords="offset points", arrowprops=arrow)


def _free_place(
    ax: Axes, level: Bbox, taken: Sequence[Bbox], reach: int
) -> tuple[int, Bbox] | None:
    """How many points up or down a box is free, the nearest place first, and where it then is."""
    for up in (sign * step for step in range(0, reach + 1, 3) for sign in (1, -1)):
        box = level.translated(0, up * ax.figure.dpi / 72)
        inside = ax.bbox.y0 < box.y0 and box.y1 < ax.bbox.y1 and box.x1 < ax.bbox.x1
        if inside and not any(box.overlaps(other) for other in taken):
            return up, box
    return None
