"""The figure of growth: memory over the size of a request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.palette import MUTED, OWNER_COLOURS
from hybridlab.units import GIB, format_bytes

_KINDS = {"audio_s": "length of the audio (s)", "batch": "requests in a batch"}


@theme.styled(cases=("status",))
def request_scaling(cases: pd.DataFrame) -> Figure:
    """Request peak over the request's size, measured and predicted (dashed), per kind of limit."""
    tried = cases[cases["scaling_kind"].isin(_KINDS)] if "scaling_kind" in cases else cases.head(0)
    columns = {
        "peak": "request_peak_bytes",
        "size": "scaling_value",
        "predicted": "predicted_bytes",
    }
    rows = tried.assign(**{name: numbers(tried, column) for name, column in columns.items()})
    rows = rows[rows["size"].notna()].sort_values("size")
    if rows.empty:
        return theme.nothing_to_show("No audio length or batch size was tried.")
    kinds = [kind for kind in _KINDS if (rows["scaling_kind"] == kind).any()]
    figure = theme.new_figure(5.0)
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    highest = max(0.0, *rows[["peak", "predicted"]].max().fillna(0.0))
    for ax, kind in zip(axes, kinds, strict=True):
        own = rows[rows["scaling_kind"] == kind]
        _draw_limit(ax, own)
        _size_axis(ax, own["size"], _KINDS[kind])
        capacities = numbers(own, "capacity_bytes").dropna()
        elements.draw_capacity(ax, capacities, highest or 1.0, vertical=False)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("request peak (GiB)")
    elements.legend_below(axes[0])
    words = caption(
        rows,
        cases,
        n=f"{labels.counted(len(rows), 'case')}, a fresh process each",
        interval="no interval: one case for each size",
        sampled=True,
    )
    return theme.finish(figure, _finding(rows, kinds), words)


def _draw_limit(ax: Axes, rows: pd.DataFrame) -> None:
    fine = rows[(rows["status"] == "ok") & rows["peak"].notna()]
    look: dict[str, Any] = {"color": OWNER_COLOURS["request"], "linewidth": 2}
    ax.plot(fine["size"], fine["peak"] / GIB, "o-", label="measured", **look)
    predicted = rows[rows["predicted"].notna()]
    if len(predicted):
        dashed: dict[str, Any] = {"color": MUTED, "linestyle": "--", "linewidth": 1.6}
        ax.plot(predicted["size"], predicted["predicted"] / GIB, label="predicted", **dashed)
    for _, row in rows[rows["status"] != "ok"].iterrows():
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


def _finding(rows: pd.DataFrame, kinds: list[str]) -> str:
    words = []
    for kind in kinds:
        own = rows[rows["scaling_kind"] == kind]
        fine = own[(own["status"] == "ok") & own["peak"].notna()]
        if fine.empty:
            words.append(f"no {'audio' if kind == 'audio_s' else 'batch'} could be served")
            continue
        top = fine.iloc[-1]
        words.append(f"{labels.limit_name(kind, top['size'])} peaks at {format_bytes(top['peak'])}")
        margin = labels.number_of(top, "margin_bytes")
        if np.isfinite(margin):
            words[-1] += f" ({labels.spare(margin)})"
    lost = int((rows["status"] != "ok").sum())
    title = labels.capital(", ".join(words))
    return title + (f"; {lost} of {len(rows)} sizes failed" if lost else "")
