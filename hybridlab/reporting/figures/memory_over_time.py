"""Figure of one case over time: memory with the phases of both models. Axes in s and GiB."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import Array
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, gantt, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.palette import OWNER_COLOURS
from hybridlab.units import GIB, format_bytes, format_seconds


@theme.styled(samples=("case_id", "source", "t_s", "bytes"), spans=gantt.COLUMNS)
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
    own = own.assign(bytes=numbers(own, "bytes"), t_s=numbers(own, "t_s"))
    own = own[own["bytes"].notna() & own["t_s"].notna()].sort_values("t_s")
    if own.empty:
        return theme.nothing_to_show(f"No memory was sampled for the case {case_id}.")
    figure = theme.new_figure(5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.25))
    t_s, used = own["t_s"].to_numpy(), own["bytes"].to_numpy() / GIB
    peak = int(np.argmax(used))
    _draw_curve(top, t_s, used, peak)
    if cases is not None:
        capacity = numbers(cases[cases["case_id"] == case_id], "capacity_bytes").dropna()
        elements.draw_capacity(top, capacity, used[peak] * GIB, vertical=False)
    mine = spans[(spans["case_id"] == case_id) & spans["start_s"].notna() & spans["end_s"].notna()]
    gantt.draw_lanes(below, mine)
    below.set_xlabel("time since the case began (s)")
    elements.legend_below(top, handles=gantt.phase_handles(mine), columns=7)
    during = gantt.phase_at(mine, float(t_s[peak]))
    title = f"Memory peaks at {format_bytes(used[peak] * GIB)} after {format_seconds(t_s[peak])}"
    words = caption(
        own,
        cases,
        n=f"{labels.counted(len(own), 'reading')} of {own['source'].iloc[0]}, thinned",
        interval="no interval: one case",
        notes=(case_id, "triangle: the peak"),
        sampled=True,
    )
    return theme.finish(figure, title + during, words)


def _draw_curve(ax: Axes, t_s: Array, used_gib: Array, peak: int) -> None:
    ax.plot(t_s, used_gib, color="#222222", linewidth=1.6)
    ax.fill_between(t_s, used_gib, color="#222222", alpha=0.07)
    ax.plot(t_s[peak], used_gib[peak], "v", color=OWNER_COLOURS["request"], markersize=10)
    ax.set_ylim(0, (used_gib[peak] or 1.0) * 1.16)
    ax.set_ylabel("memory in use (GiB)")
