"""The figure of growth: memory over the size of a request."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import OWNER_COLOURS
from hybridlab.units import GIB, format_bytes

_KIND_WORDS = {"audio_s": "length of the audio (s)", "batch": "requests in a batch"}


@style.styled(cases=("status",))
def limits(cases: pd.DataFrame) -> Figure:
    """Request peak over the request's size, measured and predicted (dashed), per kind of limit."""
    tried = cases[cases["limit_kind"].isin(_KIND_WORDS)] if "limit_kind" in cases else cases.head(0)
    rows = tried[wording.numbers(tried, "limit_value").notna()]
    if rows.empty:
        return style.nothing_to_show("No audio length or batch size was tried.")
    rows = rows.assign(
        peak=wording.numbers(rows, "request_peak_bytes"),
        limit_value=wording.numbers(rows, "limit_value"),
        predicted=wording.numbers(rows, "predicted_bytes"),
    ).sort_values("limit_value")
    kinds = [kind for kind in _KIND_WORDS if (rows["limit_kind"] == kind).any()]
    figure = style.new_figure(5.0)
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    highest = max(0.0, *rows[["peak", "predicted"]].max().fillna(0.0))
    for ax, kind in zip(axes, kinds, strict=True):
        own = rows[rows["limit_kind"] == kind]
        _draw_limit(ax, own)
        _size_axis(ax, own["limit_value"], _KIND_WORDS[kind])
        marks.draw_capacity(
            ax, wording.numbers(own, "capacity_bytes").dropna(), highest or 1.0, vertical=False
        )
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("request peak (GiB)")
    marks.legend_below(axes[0])
    words = caption(
        rows,
        cases,
        n=f"{wording.counted(len(rows), 'case')}, a fresh process each",
        interval="no interval: one case for each size",
        sampled=True,
    )
    return style.finish(figure, _limits_finding(rows, kinds), words)


def _draw_limit(ax: Axes, rows: pd.DataFrame) -> None:
    fine = rows[(rows["status"] == "ok") & rows["peak"].notna()]
    colour = OWNER_COLOURS["request"]
    ax.plot(
        fine["limit_value"], fine["peak"] / GIB, "o-", color=colour, linewidth=2, label="measured"
    )
    predicted = rows[rows["predicted"].notna()]
    if len(predicted):
        ax.plot(
            predicted["limit_value"],
            predicted["predicted"] / GIB,
            color="#444444",
            linestyle="--",
            linewidth=1.6,
            label="predicted",
        )
    failed = rows[rows["status"] != "ok"]
    for _, row in failed.iterrows():
        ax.axvline(row["limit_value"], color="#999999", linestyle=":", linewidth=1.2)
        ax.annotate(
            wording.wrap(f"✗ {wording.status_words(row)}", 30),
            (row["limit_value"], 0.03),
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
    known = sorted(set(values.dropna()))
    if known and known[0] > 0 and known[-1] / known[0] > 10:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    step = max(1, len(known) // 6)
    shown = known[::-1][::step][::-1]
    ax.set_xticks(shown, [f"{value:g}" for value in shown])
    ax.set_xlabel(label)


def _limits_finding(rows: pd.DataFrame, kinds: list[str]) -> str:
    words = []
    for kind in kinds:
        own = rows[rows["limit_kind"] == kind]
        fine = own[(own["status"] == "ok") & own["peak"].notna()]
        if fine.empty:
            words.append(f"no {'audio' if kind == 'audio_s' else 'batch'} could be served")
            continue
        top = fine.iloc[-1]
        lead = wording.limit_words(kind, float(top["limit_value"]))
        words.append(f"{lead} peaks at {format_bytes(top['peak'])}")
        margin = wording.numbers(fine.tail(1), "margin_bytes").iloc[0]
        if np.isfinite(margin):
            words[-1] += f" ({wording.spare_words(margin)})"
    lost = int((rows["status"] != "ok").sum())
    title = ", ".join(words)
    return title[:1].upper() + title[1:] + (f"; {lost} of {len(rows)} sizes failed" if lost else "")
