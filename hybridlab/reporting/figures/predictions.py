"""The planner's bytes against the measured ones."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.palette import GUIDE, PREDICTED_LOOK
from hybridlab.reporting.rows import case_labels
from hybridlab.units import GIB, MIB, counted


@theme.styled()
def predicted_against_measured(ledgers: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Each owner's predicted and measured bytes in GiB, on logarithmic axes with the diagonal."""
    points = prediction_points(ledgers, cases)
    if points.empty:
        return theme.nothing_to_show("No owner has both a predicted and a measured size.")
    figure, ax = theme.new_axes(6.0)
    sizes = points[["predicted", "measured"]].to_numpy()
    ends = [sizes.min() * 0.6, sizes.max() * 1.7]
    ax.plot(ends, ends, color=GUIDE, linestyle="--", linewidth=1.2, zorder=1)
    known = set(points["owner"])
    look = {owner: own for owner, own in PREDICTED_LOOK.items() if owner in known}
    colours, markers = ({owner: own[i] for owner, own in look.items()} for i in (0, 1))
    shown = {"hue": "owner", "palette": colours, "style": "owner", "markers": markers}
    sns.scatterplot(points, x="predicted", y="measured", **shown, s=110, legend=False, ax=ax)
    handles = [
        Line2D([], [], marker=marker, color=colour, linestyle="", label=labels.role_name(owner))
        for owner, (colour, marker) in look.items()
    ]
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set(xlabel="predicted (GiB)", ylabel="measured (GiB)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    elements.legend_below(ax, handles=handles)
    worst = points.sort_values("error", key=abs).iloc[-1]
    return theme.captioned(
        figure,
        f"Predictions are {labels.percent(points['error'].abs().median())} off at the median; "
        f"at worst {_error(worst['error'])} ({worst['owner']}, {worst['label']})",
        cases,
        cases,
        n=counted(len(points), "size"),
        interval="no interval: repeated cases stand at their median",
        notes=("dashed: as predicted",),
        sampled=True,
    )


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
