"""Figures of one case over time: memory with phases, and who works when. Axes in s and GiB."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.stats import Array
from hybridlab.reporting.figures import lanes, marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import OWNER_COLOURS
from hybridlab.units import GIB, format_bytes, format_seconds


@style.styled(samples=("case_id", "source", "t_s", "bytes"), spans=lanes.COLUMNS)
def memory_over_time(
    samples: pd.DataFrame,
    spans: pd.DataFrame,
    cases: pd.DataFrame | None = None,
    *,
    case_id: str,
) -> Figure:
    """The sampled curve of one case, under the capacity that `cases` knows, above a lane of the
    tenants' phases."""
    own = samples[(samples["case_id"] == case_id) & (samples["source"] != "after-cycle")]
    own = own.assign(bytes=wording.numbers(own, "bytes"), t_s=wording.numbers(own, "t_s"))
    own = own[own["bytes"].notna() & own["t_s"].notna()].sort_values("t_s")
    if own.empty:
        return style.nothing_to_show(f"No memory was sampled for the case {case_id}.")
    figure = style.new_figure(5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.25))
    t_s, used = own["t_s"].to_numpy(), own["bytes"].to_numpy() / GIB
    peak = int(np.argmax(used))
    _draw_curve(top, t_s, used, peak)
    if cases is not None:
        capacity = wording.numbers(cases[cases["case_id"] == case_id], "capacity_bytes").dropna()
        marks.draw_capacity(top, capacity, used[peak] * GIB, vertical=False)
    mine = _timed(spans[spans["case_id"] == case_id])
    lanes.draw_lanes(below, mine)
    below.set_xlabel("time since the case began (s)")
    marks.legend_below(top, handles=lanes.phase_handles(mine), columns=7)
    during = lanes.phase_at(mine, float(t_s[peak]))
    title = f"Memory peaks at {format_bytes(used[peak] * GIB)} after {format_seconds(t_s[peak])}"
    words = caption(
        own,
        cases,
        n=f"{wording.counted(len(own), 'reading')} of {own['source'].iloc[0]}, thinned",
        interval="no interval: one case",
        notes=(case_id, "triangle: the peak"),
        sampled=True,
    )
    return style.finish(figure, title + during, words)


def _draw_curve(ax: Axes, t_s: Array, used_gib: Array, peak: int) -> None:
    ax.plot(t_s, used_gib, color="#222222", linewidth=1.6)
    ax.fill_between(t_s, used_gib, color="#222222", alpha=0.07)
    ax.plot(t_s[peak], used_gib[peak], "v", color=OWNER_COLOURS["request"], markersize=10)
    ax.set_ylim(0, (used_gib[peak] or 1.0) * 1.16)
    ax.set_ylabel("memory in use (GiB)")


def _timed(spans: pd.DataFrame) -> pd.DataFrame:
    return spans[spans["start_s"].notna() & spans["end_s"].notna()]


@style.styled(spans=lanes.COLUMNS)
def timeline(
    spans: pd.DataFrame,
    cases: pd.DataFrame | None = None,
    *,
    case_id: str,
    max_requests: int = 4,
) -> Figure:
    """Phases of both tenants over the first few requests of a case."""
    own = _timed(spans[(spans["case_id"] == case_id) & spans["request_id"].notna()])
    if own.empty:
        return style.nothing_to_show(f"No phases were recorded for requests of the case {case_id}.")
    begins = own.groupby("request_id")["start_s"].min().sort_values()
    measured = [name for name in begins.index if not str(name).endswith("-first")]
    chosen = (measured or list(begins.index))[:max_requests]
    own = own[own["request_id"].isin(chosen)]
    origin = float(own["start_s"].min())
    own = own.assign(start_s=own["start_s"] - origin, end_s=own["end_s"] - origin)
    figure, ax = style.new_axes(3.6)
    lanes.draw_lanes(ax, own)
    for number, name in enumerate(chosen, 1):
        _mark_request(ax, number, own[own["request_id"] == name], len(chosen))
    ax.set_xlabel("time (s)")
    marks.legend_below(ax, handles=lanes.phase_handles(own), columns=7)
    words = caption(
        own,
        cases,
        n=f"{len(chosen)} of {wording.counted(len(measured or begins), 'request')}",
        interval="no interval: every band is one phase",
        notes=(case_id,),
    )
    return style.finish(figure, _finding(own), words)


def _mark_request(ax: Axes, number: int, spans: pd.DataFrame, count: int) -> None:
    start, end = float(spans["start_s"].min()), float(spans["end_s"].max())
    ax.axvspan(start, end, color="#000000", alpha=0.04 + 0.05 * (number % 2), zorder=1)
    ax.annotate(
        f"request {number}" if count <= 4 else str(number),
        ((start + end) / 2, 1.0),
        xycoords=ax.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=10,
    )


def _finding(spans: pd.DataFrame) -> str:
    """How much of the time both tenants worked, and who worked most."""
    seconds = lanes.working_s(spans)
    both = seconds.pop("both")
    total = float(spans["end_s"].max() - spans["start_s"].min())
    if not seconds or total <= 0:
        return "No work was recorded in these requests"
    most = max(seconds, key=lambda tenant: seconds[tenant])
    words = f"{most.capitalize()} works {seconds[most] / total * 100:.0f} % of the time"
    if len(seconds) < 2:
        return words
    return f"{words}; both work at once {both / total * 100:.0f} % of it"
