"""Figures of the edge: how much memory may be taken away before a request fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.stats import Array, bootstrap_interval
from hybridlab.summary import least_rooms
from hybridlab.units import MIB, format_bytes


@style.styled
def survival(probes: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Share of requests that survive over the room left above the resident pair, per strategy."""
    rooms = least_rooms(probes, cases)
    if rooms.empty:
        return style.nothing_to_show("No request was squeezed, so there is no survival to show.")
    figure, ax = style.new_axes(4.8)
    most = float(rooms["room_bytes"].max()) * 1.25
    for place, (strategy, own) in enumerate(rooms.groupby("strategy", sort=False)):
        height = 0.5 - 0.06 * place  # bars of equal strategies must not hide each other
        _draw(ax, str(strategy), own["room_bytes"].to_numpy(dtype=float), most, height)
    ax.set(xlim=(0, most / MIB), ylim=(-0.03, 1.06))
    ax.set_xlabel("memory left above the resident pair (MiB)")
    ax.set_ylabel("requests that survive")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    style.legend_below(ax)
    own_cases = cases[cases["case_id"].isin(rooms["case_id"])]
    caption = wording.caption_of(
        own_cases,
        f"n = {len(rooms)} requests, each bisected with real failures",
        "line: share of requests · dot and bar: median room with 95 % interval",
    )
    return style.finish(figure, _finding(rooms), caption)


def _draw(ax: Axes, strategy: str, rooms: Array, most: float, height: float) -> None:
    ordered = np.sort(rooms)
    steps = np.concatenate([[0.0], ordered, [most]]) / MIB
    share = np.concatenate([[0.0], np.arange(1, len(ordered) + 1) / len(ordered), [1.0]])
    colour = style.STRATEGY_COLOURS.get(strategy, style.MUTED)
    marker = style.STRATEGY_MARKERS.get(strategy, "o")
    label = f"{strategy} (n = {len(ordered)})"
    ax.step(steps, share, where="post", color=colour, linewidth=2.2, label=label)
    estimate = bootstrap_interval(rooms)
    if np.isfinite(estimate.low):
        ax.hlines(height, estimate.low / MIB, estimate.high / MIB, color=colour, linewidth=3)
    ax.plot(estimate.value / MIB, height, marker, color=colour, markersize=9, mec="white", zorder=4)


def _finding(rooms: pd.DataFrame) -> str:
    needs = {
        str(strategy): bootstrap_interval(own["room_bytes"]).value
        for strategy, own in rooms.groupby("strategy", sort=False)
    }
    first, *others = sorted(needs, key=lambda name: -needs[name])
    words = f"{first} breaks first: it needs {format_bytes(needs[first])} above the resident pair"
    if others:
        words += f", {others[-1]} {format_bytes(needs[others[-1]])}"
    return words[:1].upper() + words[1:]
