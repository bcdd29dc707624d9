"""Figures over time: memory with phases, and who works when. Axes in s and GiB."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.plots import lanes, style, wording
from hybridlab.units import GIB, format_bytes


@style.styled
def memory_over_time(
    samples: pd.DataFrame,
    spans: pd.DataFrame,
    *,
    case_id: str,
    capacity_bytes: float | None = None,
) -> Figure:
    """The sampled curve of one case above a lane of the tenants' phases."""
    own = samples[samples["case_id"] == case_id] if len(samples) else samples
    if len(own):
        own = own[own["source"] != "after-cycle"].sort_values("t_s")
    if own.empty:
        return style.nothing_to_show(f"No memory was sampled for the case {case_id}.")
    figure = style.new_figure(5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.25))
    t_s, used = (
        wording.numbers(own, "t_s").to_numpy(),
        wording.numbers(own, "bytes").to_numpy() / GIB,
    )
    top.plot(t_s, used, color="#222222", linewidth=1.6)
    top.fill_between(t_s, used, color="#222222", alpha=0.07)
    peak = int(np.argmax(used))
    top.plot(t_s[peak], used[peak], "v", color=style.OWNER_COLOURS["request"], markersize=10)
    top.set_ylim(0, used.max() * 1.16)
    top.set_ylabel("memory in use (GiB)")
    if capacity_bytes:
        style.draw_capacity(top, [capacity_bytes], used.max() * GIB, vertical=False)
    mine = spans[spans["case_id"] == case_id] if len(spans) else spans
    lanes.draw_lanes(below, mine)
    below.set_xlabel("time since the case began (s)")
    style.legend_below(top, handles=lanes.phase_handles(mine), columns=7)
    during = lanes.phase_at(mine, float(t_s[peak]))
    title = f"Memory peaks at {format_bytes(used[peak] * GIB)} after {t_s[peak]:.3g} s{during}"
    words = f"{case_id} · n = {len(own)} readings of {own['source'].iloc[0]}, thinned"
    return style.finish(figure, title, wording.caption_of(None, words, wording.device_words(own)))


@style.styled
def timeline(spans: pd.DataFrame, *, case_id: str, max_requests: int = 4) -> Figure:
    """Phases of both tenants over the first few requests of a case."""
    own = spans[spans["case_id"] == case_id] if len(spans) else spans
    own = own[own["request_id"].notna()] if len(own) else own
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
        mine = own[own["request_id"] == name]
        start, end = float(mine["start_s"].min()), float(mine["end_s"].max())
        ax.axvspan(start, end, color="#000000", alpha=0.04 + 0.05 * (number % 2), zorder=1)
        ax.annotate(
            f"request {number}" if len(chosen) <= 4 else str(number),
            ((start + end) / 2, 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
        )
    ax.set_xlabel("time (s)")
    style.legend_below(ax, handles=lanes.phase_handles(own), columns=7)
    words = f"{case_id} · n = {len(chosen)} of {len(measured or begins)} requests"
    caption = wording.caption_of(None, words, wording.device_words(own))
    return style.finish(figure, _overlap_words(own), caption)


def _overlap_words(spans: pd.DataFrame) -> str:
    """The finding of a timeline: how much of the time both tenants worked, and who worked most."""
    working = spans[spans["phase"] != "wait"]
    busy = {
        tenant: _union(rows[["start_s", "end_s"]].to_numpy(dtype=float).tolist())
        for tenant, rows in working.groupby("tenant")
    }
    lengths = {str(tenant): sum(b - a for a, b in bands) for tenant, bands in busy.items()}
    total = float(spans["end_s"].max() - spans["start_s"].min())
    if not lengths or total <= 0:
        return "No work was recorded in these requests"
    most = max(lengths, key=lambda tenant: lengths[tenant])
    words = f"{most.capitalize()} works {lengths[most] / total * 100:.0f} % of the time"
    if len(lengths) < 2:
        return words
    merged = _union([band for bands in busy.values() for band in bands])
    both = sum(lengths.values()) - sum(b - a for a, b in merged)
    return f"{words}; both work at once {both / total * 100:.0f} % of it"


def _union(bands: list[Any]) -> list[tuple[float, float]]:
    """The (start, end) bands joined where they touch."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(bands):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
