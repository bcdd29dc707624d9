"""The planner's bytes against the measured ones. Axes in GiB."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.palette import GUIDE, PREDICTED_LOOK
from hybridlab.reporting.rows import case_labels
from hybridlab.units import GIB, MIB

MOST_LABELS = 24


@theme.styled(
    ledgers=("case_id", "moment", "owner", "bytes", "predicted_bytes"),
    cases=("case_id", "experiment"),
)
def predicted_against_measured(ledgers: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """The planner's bytes against the measured ones, on logarithmic axes with the diagonal."""
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
            name = labels.role_name(owner)
            look: dict[str, Any] = {"color": colour, "markersize": 10, "mec": "white", "zorder": 3}
            ax.plot(own["predicted"], own["measured"], marker, label=name, **look)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set(xlabel="predicted (GiB)", ylabel="measured (GiB)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    worst_first = points.reindex(points["error"].abs().sort_values(ascending=False).index)
    top = worst_first.iloc[0]
    title = (
        f"Predictions are {labels.percent(points['error'].abs().median())} off at the median; "
        f"at worst {_error(top['error'])} ({top['owner']}, {top['label']})"
    )
    words = caption(
        cases,
        cases,
        n=f"{labels.counted(len(points), 'size')}, labelled with the measured one against the "
        "predicted",
        interval="no interval: repeated cases stand at their median",
        notes=("dashed: as predicted",),
        sampled=True,
    )
    elements.legend_below(ax)
    theme.finish(figure, title, words)
    named = [_error(error) for error in worst_first["error"].head(MOST_LABELS)]
    places = worst_first[["predicted", "measured"]].to_numpy().tolist()
    elements.label_points(ax, places, named, reach=15)
    return figure


def _error(error: float) -> str:
    """'+3.4 %', and '×15' where the measured size is more than twice the predicted."""
    return labels.percent(error, signed=True) if error <= 1 else f"×{1 + error:.3g}"


def prediction_points(ledgers: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Rows of owner, label, predicted and measured (GiB) and error; equal ones once."""
    names = case_labels(cases) if len(cases) else pd.Series(dtype=str)
    by_id = dict(zip(cases.get("case_id", []), names, strict=False))
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
