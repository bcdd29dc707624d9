"""The figure of growth: memory and latency over many cycles, per strategy and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import numbers
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import growth_finding
from hybridlab.reporting.palette import DASHES, GUIDE, MUTED, REMEDY_LOOK
from hybridlab.reporting.rows import ordered
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import MIB, counted

#: Points of a line: of more cycles the medians of so many stretches are drawn.
_POINTS = 40
_REMEDIES = tuple(REMEDY_LOOK)


@theme.styled()
def soak(cycles: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A column per strategy: what is occupied after each cycle against the first, latency where
    there is a clock, and the trend of memory with its interval, a row per remedy."""
    arms = [
        arm for arm in memory_growth.arms(ordered(cycles)) if arm.cycles[arm.occupied].notna().any()
    ]
    if not arms:
        return theme.nothing_to_show("No memory was read after cycles of requests.")
    strategies = list(dict.fromkeys(arm.strategy for arm in arms))
    remedies = sorted({arm.mitigation for arm in arms}, key=_place)
    curves = {arms[0].occupied: "memory", "latency_s": "latency"}
    if not numbers(cycles, "latency_s").notna().any():
        del curves["latency_s"]
    heights = (*(3.0, 2.0)[: len(curves)], 0.7 + 0.3 * len(remedies))
    figure = theme.new_figure(2.6 + 2.2 * len(curves) + 0.24 * len(remedies))
    grid: Any = {"squeeze": False, "sharey": "row", "height_ratios": heights}
    axes = figure.subplots(len(heights), len(strategies), **grid)
    for row in axes:
        for ax in row[1:]:
            ax.sharex(row[0])
    for column, strategy in zip(axes.T, strategies, strict=True):
        own = [arm for arm in arms if arm.strategy == strategy]
        for ax, quantity in zip(column, curves, strict=False):
            _draw_cycles(ax, own, quantity)
        _draw_slopes(column[-1], own, remedies)
        column[0].axhline(0, color=GUIDE, linewidth=1)
        column[0].set_title(strategy, loc="left")
        column[-2].set_xlabel("cycle (one request each)")
        column[-1].set_xlabel(f"trend of memory (MiB per {memory_growth.PER_CYCLES} cycles)")
    _name_axes(list(axes[:, 0]), arms[0], remedies)
    elements.legend_below(axes[0][0], columns=4)
    most = int(cycles.groupby(["strategy", "mitigation"])["cycle"].nunique().max())
    return theme.captioned(
        figure,
        growth_finding(arms),
        cycles,
        cases,
        n=f"{counted(most, 'cycle')} per strategy and remedy",
        interval="trend: least squares without the first fifth; bar: 95 % interval for "
        "dependent readings",
        notes=(
            f"lines: medians of up to {_POINTS} stretches of cycles",
            "" if has_clock(cycles) else f"no latency: {NO_TIMES}",
        ),
        sampled=True,
    )


def _place(mitigation: str) -> int:
    return _REMEDIES.index(mitigation) if mitigation in _REMEDIES else len(_REMEDIES)


def _look(mitigation: str) -> tuple[str, str]:
    return REMEDY_LOOK.get(mitigation, (MUTED, "v"))


def _name_axes(axes: list[Axes], arm: memory_growth.Arm, remedies: list[str]) -> None:
    what = "reserved" if arm.occupied == "reserved_bytes" else "resident"
    axes[0].set_ylabel(f"{what} memory\nagainst the first (MiB)")
    for ax in axes[1:-1]:
        ax.set(ylabel="latency (ms)", ylim=(0, ax.get_ylim()[1] * 1.06))
    axes[-1].set_yticks(range(len(remedies)), remedies)
    axes[-1].set_ylim(len(remedies) - 0.5, -0.5)


def _draw_cycles(ax: Axes, arms: Sequence[memory_growth.Arm], quantity: str) -> None:
    """A line for each remedy: latency in ms, bytes in MiB against those of the first cycle."""
    for arm in arms:
        values = numbers(arm.cycles, quantity)
        values = values * 1e3 if quantity == "latency_s" else (values - values.iloc[0]) / MIB
        stretch = np.arange(len(values)) * min(_POINTS, len(values)) // len(values)
        points = pd.DataFrame({"cycle": arm.cycles["cycle"], "value": values}).groupby(stretch)
        colour, marker = _look(arm.mitigation)
        sns.lineplot(
            x=points["cycle"].mean(),
            y=points["value"].median(),
            marker=marker,
            markersize=4,
            markeredgecolor=colour,
            linewidth=1.3,
            linestyle=DASHES[_place(arm.mitigation) % len(DASHES)],
            color=colour,
            label=f"remedy: {arm.mitigation}",
            legend=False,
            errorbar=None,
            ax=ax,
        )
    ax.set(xlabel="", ylabel="")


def _draw_slopes(ax: Axes, arms: Sequence[memory_growth.Arm], remedies: list[str]) -> None:
    ax.axvline(0, color=GUIDE, linewidth=1)
    ax.grid(visible=False, axis="y")
    for arm in arms:
        slope, y = arm.slope(arm.occupied), remedies.index(arm.mitigation)
        colour, marker = _look(arm.mitigation)
        if np.isfinite(slope.value):
            ax.hlines(y, slope.low / MIB, slope.high / MIB, color=colour, linewidth=2.4)
            ax.plot(slope.value / MIB, y, marker, color=colour, markersize=8, mec="white")
        else:
            elements.text_row(ax, y, "too few cycles")
