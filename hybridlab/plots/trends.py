"""Figures of growth: memory over the size of a request, and over many requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from hybridlab.plots import style, wording
from hybridlab.stats import Interval, slope_with_interval
from hybridlab.units import GIB, MIB, format_bytes

_KIND_WORDS = {"audio_s": "length of the audio (s)", "batch": "requests in a batch"}
_REMEDY_LOOK: tuple[tuple[str, str], ...] = (
    ("#222222", "o"),
    (style.OWNER_COLOURS["request"], "s"),
    (style.OWNER_COLOURS["load"], "^"),
    (style.STRATEGY_COLOURS["swapping"], "D"),
)


# ---------------------------------------------------------------------------------------- limits


@style.styled
def limits(cases: pd.DataFrame) -> Figure:
    """Request peak over the request's size, measured and predicted (dashed), per kind of limit."""
    rows = cases[cases["limit_kind"].notna()] if "limit_kind" in cases else cases.head(0)
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
        style.draw_capacity(
            ax, wording.numbers(own, "capacity_bytes").dropna(), highest or 1.0, vertical=False
        )
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("peak while serving (GiB)")
    style.legend_below(axes[0])
    caption = wording.caption_of(cases, f"n = {len(rows)} cases, a fresh process each")
    return style.finish(figure, _limits_finding(rows, kinds), caption)


def _draw_limit(ax: Axes, rows: pd.DataFrame) -> None:
    fine = rows[(rows["status"] == "ok") & rows["peak"].notna()]
    colour = style.OWNER_COLOURS["request"]
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


# ---------------------------------------------------------------------------------------- ageing


@style.styled
def ageing(samples: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Memory after each cycle against the first, per remedy, with the trend in MiB per 100 cycles.

    The trend leaves the first cycle out, which pays for what a process allocates once.
    """
    rows = after_cycles(samples, cases)
    if rows.empty:
        return style.nothing_to_show("No memory was read after cycles of requests.")
    figure, ax = style.new_axes(5.0)
    slopes = remedy_slopes(rows)
    for number, (remedy, group) in enumerate(rows.groupby("remedy", sort=False)):
        colour, marker = _REMEDY_LOOK[number % len(_REMEDY_LOOK)]
        ax.plot(
            group["cycle"],
            group["above_mib"],
            marker=marker,
            markersize=4.5,
            linewidth=1.2,
            linestyle=style.DASHES[number % len(style.DASHES)],
            color=colour,
            label=f"{remedy}: {_slope_words(slopes[str(remedy)])}",
        )
    ax.axhline(0, color="#888888", linewidth=1)
    ax.set_xlabel("cycle (one request each)")
    ax.set_ylabel("memory after the cycle,\nagainst the first (MiB)")
    style.legend_below(ax, columns=1)
    cycles = int(rows["cycle"].nunique())
    words = f"n = {cycles} cycles per remedy · trend: least squares, block-bootstrap 95 % interval"
    caption = wording.caption_of(cases[cases["case_id"].isin(rows["case_id"])], words)
    return style.finish(figure, ageing_finding(slopes), caption)


def after_cycles(samples: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Readings after cycles with the case's remedy, as MiB above the first reading."""
    columns = ["case_id", "remedy", "cycle", "above_mib"]
    if samples.empty or "remedy" not in cases or "cycle" not in samples:
        return pd.DataFrame(columns=columns)
    rows = samples[samples["source"] == "after-cycle"]
    rows = rows.merge(cases[["case_id", "remedy"]].dropna(), on="case_id")
    rows = rows.assign(
        cycle=wording.numbers(rows, "cycle"), bytes=wording.numbers(rows, "bytes")
    ).dropna(subset=["cycle", "bytes"])
    order = {case_id: number for number, case_id in enumerate(cases["case_id"])}
    rows = rows.assign(order=rows["case_id"].map(order))
    rows = rows.sort_values(["order", "cycle"], kind="stable")
    first = rows.groupby("case_id")["bytes"].transform("first")
    return rows.assign(above_mib=(rows["bytes"] - first) / MIB)


def remedy_slopes(rows: pd.DataFrame) -> dict[str, Interval]:
    """Trend of each remedy in MiB per 100 cycles, the first cycle left out."""
    later = rows[rows["cycle"] > rows["cycle"].min()]
    slopes = {}
    for remedy, group in rows.groupby("remedy", sort=False):
        own = later[later["remedy"] == remedy]
        per_cycle = slope_with_interval(list(own["cycle"]), list(own["above_mib"]))
        slopes[str(remedy)] = Interval(
            per_cycle.value * 100, per_cycle.low * 100, per_cycle.high * 100, len(group)
        )
    return slopes


def _slope_words(slope: Interval) -> str:
    if not np.isfinite(slope.value):
        return "too few cycles for a trend"
    return f"{slope.value:+.3g} MiB per 100 cycles [{slope.low:+.3g}, {slope.high:+.3g}]"


def ageing_finding(slopes: dict[str, Interval]) -> str:
    """Which remedies leave memory growing, judged by the interval of the trend."""
    known: dict[str, Any] = {k: v for k, v in slopes.items() if np.isfinite(v.value)}
    if not known:
        return "Too few cycles to see a trend"
    growing = [name for name, slope in known.items() if slope.low > 0]
    if not growing:
        return "No growth can be told from zero, with any remedy"
    worst = max(growing, key=lambda name: known[name].value)
    words = f"Memory grows by {known[worst].value:.3g} MiB per 100 cycles with remedy '{worst}'"
    flat = [name for name in known if name not in growing]
    if flat:
        return f"{words}; not with {', '.join(repr(name) for name in flat)}"
    return words + ("; with every remedy" if len(known) > 1 else "")
