"""Figures of limits: memory over the size of a request, and how much memory may be taken away
before a request fails."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.case_status import with_bytes
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.strategies import draw_ecdf
from hybridlab.reporting.findings import scaling_finding, survival_finding
from hybridlab.reporting.palette import MUTED, OWNER_COLOURS
from hybridlab.reporting.rows import strategies_first
from hybridlab.reporting.tables import least_headrooms, request_sizes
from hybridlab.units import GIB, MIB, counted, format_bytes

_KINDS = {"audio_s": "length of the audio (s)", "batch": "requests in a batch"}

# --------------------------------------------------------------------------------- request's size


@theme.styled()
def request_scaling(cases: pd.DataFrame) -> Figure:
    """Request peak over the request's size, measured and predicted (dashed), per kind of limit."""
    rows = request_sizes(cases)
    if rows.empty:
        return theme.nothing_to_show("No audio length or batch size was tried.")
    kinds = [kind for kind in _KINDS if (rows["scaling_kind"] == kind).any()]
    figure = theme.new_figure(5.0)
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    highest = max(0.0, *rows[["request_peak_bytes", "predicted_bytes"]].max().fillna(0.0))
    for ax, kind in zip(axes, kinds, strict=True):
        own = rows[rows["scaling_kind"] == kind]
        _draw_sizes(ax, own)
        _size_axis(ax, own["size"], _KINDS[kind])
        capacities = numbers(own, "capacity_bytes").dropna()
        elements.draw_capacity(ax, capacities, highest or 1.0, vertical=False)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("request peak (GiB)")
    elements.legend_below(axes[0])
    return theme.captioned(
        figure,
        scaling_finding(rows),
        rows,
        cases,
        n=f"{counted(len(rows), 'case')}, a fresh process each",
        interval="no interval: one case for each size",
        sampled=True,
    )


def _draw_sizes(ax: Axes, rows: pd.DataFrame) -> None:
    fine = with_bytes(rows)
    fine = fine[fine["request_peak_bytes"].notna()]
    predicted = rows[rows["predicted_bytes"].notna()]
    look: dict[str, Any] = {"color": OWNER_COLOURS["request"], "linewidth": 2}
    ax.plot(fine["size"], fine["request_peak_bytes"] / GIB, "o-", label="measured", **look)
    if len(predicted):
        dashed: dict[str, Any] = {"color": MUTED, "linestyle": "--", "linewidth": 1.6}
        ax.plot(predicted["size"], predicted["predicted_bytes"] / GIB, label="predicted", **dashed)
    for _, row in rows.drop(with_bytes(rows).index).iterrows():
        ax.axvline(row["size"], color="#999999", linestyle=":", linewidth=1.2)
        ax.annotate(
            labels.wrap(f"✗ {labels.status(row)}", 30),
            (row["size"], 0.03),
            xycoords=ax.get_xaxis_transform(),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=11,
        )


def _size_axis(ax: Axes, values: pd.Series[float], label: str) -> None:
    """Ticks at the sizes that were tried; logarithmic where they span more than a decade."""
    known = sorted(set(values))
    if known[0] > 0 and known[-1] / known[0] > 10:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    shown = known[:: -max(1, len(known) // 6)][::-1]
    ax.set_xticks(shown, [f"{value:g}" for value in shown])
    ax.set_xlabel(label)


# ------------------------------------------------------------------------------- memory taken away


@theme.styled()
def survival(probes: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Share of requests that survive as memory is taken away, per strategy: from left to right less
    and less headroom is left above the resident pair."""
    found = least_headrooms(probes, cases)
    found = found[found["headroom_bytes"].notna()]
    if found.empty:
        return theme.nothing_to_show("No request was squeezed, so there is no survival to show.")
    figure, ax = theme.new_axes(4.8)
    for place, strategy in enumerate(strategies_first(list(found["strategy"].unique()))):
        own = found.loc[found["strategy"] == strategy, "headroom_bytes"].astype(float)
        label = f"{strategy} (n = {len(own)}): half fail below {format_bytes(own.median())}"
        draw_ecdf(ax, own / MIB, strategy, place, label, most=len(own))
    most = float(found["headroom_bytes"].max()) * 1.25 or float(MIB)
    ax.set(xlim=(most / MIB, 0), ylim=(-3, 106), ylabel="requests that survive (%)")
    ax.set_xlabel("memory left above the resident pair (MiB), ever more of it taken away  →")
    elements.legend_below(ax, columns=1)
    return theme.captioned(
        figure,
        survival_finding(found),
        found,
        cases,
        n=f"{counted(len(found), 'request')}, each bisected with real failures",
        interval="no interval: every request is a step",
        notes=("mark: a request fails with less room than this",),
    )
