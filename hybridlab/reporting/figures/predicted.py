"""The planner's bytes against the measured ones. Axes in GiB."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import PREDICTED_LOOK
from hybridlab.units import GIB, MIB

MOST_LABELS = 24


@style.styled(
    ledgers=("case_id", "moment", "owner", "bytes", "predicted_bytes"),
    cases=("case_id", "experiment"),
)
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
    for owner, (marker, colour) in PREDICTED_LOOK.items():
        group = points[points["owner"] == owner]
        if group.empty:
            continue
        ax.plot(
            group["predicted"],
            group["measured"],
            marker,
            color=colour,
            markersize=10,
            mec="white",
            label=owner.replace("voxtral", "Voxtral").replace("whisper", "Whisper"),
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
        f"Predictions are {wording.percent(points['error'].abs().median())} off at the median; "
        f"at worst {_error_words(top['error'])} ({top['owner']}, {top['label']})"
    )
    words = caption(
        cases,
        cases,
        n=f"{wording.counted(len(points), 'size')}, labelled with the measured one against the "
        "predicted",
        interval="no interval: repeated cases stand at their median",
        notes=("dashed: as predicted",),
        sampled=True,
    )
    marks.legend_below(ax)
    style.finish(figure, title, words)
    _label_errors(figure, ax, worst_first.head(MOST_LABELS))
    return figure


def _error_words(error: float) -> str:
    """'+3.4 %', and '×15' where the measured size is more than twice the predicted."""
    return wording.percent(error, signed=True) if error <= 1 else f"×{1 + error:.3g}"


def prediction_points(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of owner, label, predicted and measured (GiB) and error; equal ones once."""
    labels = wording.case_labels(cases) if len(cases) else pd.Series(dtype=str)
    names = dict(zip(cases.get("case_id", []), labels, strict=False))
    owners = ledgers[(ledgers["moment"] == "request_peak") & ledgers["owner"].isin(PREDICTED_LOOK)]
    of_owners = pd.DataFrame(
        {
            "owner": owners["owner"],
            "label": owners["case_id"].map(names).fillna(owners["case_id"]),
            "predicted": wording.numbers(owners, "predicted_bytes") / GIB,
            "measured": wording.numbers(owners, "bytes") / GIB,
        }
    )
    of_cases = pd.DataFrame(
        {
            "owner": "whole case",
            "label": labels,
            "predicted": wording.numbers(cases, "predicted_bytes") / GIB,
            "measured": wording.numbers(cases, "request_peak_bytes") / GIB,
        }
    )
    points = pd.concat([of_owners, of_cases], ignore_index=True).dropna()
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
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
                )
                break


#: Where a label may stand in points from its dot, the best place first.
_OFFSETS = tuple((side * dx, dy) for dx, dy in ((9, 0), (7, -13), (7, 13)) for side in (1, -1))


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
