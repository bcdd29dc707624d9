"""The figure of ageing: memory and latency over many cycles, per strategy and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis import memory_growth
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import Interval
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.ordering import ordered
from hybridlab.reporting.palette import DASHES, GUIDE, MUTED, REMEDY_LOOK
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import MIB

#: Points of a line: of more cycles the medians of so many stretches are drawn.
_POINTS = 40
_REMEDIES = tuple(REMEDY_LOOK)


@theme.styled(
    cycles=(
        *("case_id", "device", "strategy", "mitigation", "cycle"),
        *("reserved_bytes", "resident_bytes"),
    ),
    cases=("case_id",),
)
def soak(cycles: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A column per strategy: what is occupied after each cycle against the first, latency where
    there is a clock, and the trend of memory with its interval, a row per remedy."""
    found = list(memory_growth.arms(ordered(cycles))) if len(cycles) else []
    found = [arm for arm in found if arm.cycles[arm.occupied].notna().any()]
    if not found:
        return theme.nothing_to_show("No memory was read after cycles of requests.")
    strategies = list(dict.fromkeys(arm.strategy for arm in found))
    remedies = sorted({arm.mitigation for arm in found}, key=_place)
    timed = bool(numbers(cycles, "latency_s").notna().any())
    heights = (3.0, 2.0, 0.7 + 0.3 * len(remedies)) if timed else (3.0, 0.7 + 0.3 * len(remedies))
    figure = theme.new_figure((7.0 if timed else 4.8) + 0.24 * len(remedies))
    axes = figure.subplots(
        len(heights), len(strategies), squeeze=False, sharey="row", height_ratios=heights
    )
    for above, ax in zip(axes[:, 0], axes[:, 1:], strict=True):
        for other in ax:
            other.sharex(above)
    for column, strategy in enumerate(strategies):
        own = [arm for arm in found if arm.strategy == strategy]
        _draw_cycles(axes[0][column], own, found[0].occupied, unit=MIB, above_first=True)
        if timed:
            _draw_cycles(axes[1][column], own, "latency_s", unit=1e-3, above_first=False)
        _draw_slopes(axes[-1][column], own, remedies)
        axes[0][column].axhline(0, color=GUIDE, linewidth=1)
        axes[0][column].set_title(strategy, loc="left")
        axes[-2][column].set_xlabel("cycle (one request each)")
        axes[-1][column].set_xlabel(f"trend of memory (MiB per {memory_growth.PER_CYCLES} cycles)")
    _name_axes(list(axes[:, 0]), found[0], remedies, timed=timed)
    elements.legend_below(axes[0][0], columns=4)
    most = int(cycles.groupby(["strategy", "mitigation"])["cycle"].nunique().max())
    words = caption(
        cycles,
        cases,
        n=f"{labels.counted(most, 'cycle')} per strategy and remedy",
        interval="trend: least squares without the first fifth; bar: 95 % interval for "
        "dependent readings",
        notes=(
            f"lines: medians of up to {_POINTS} stretches of cycles",
            "" if has_clock(cycles) else f"no latency: {NO_TIMES}",
        ),
        sampled=True,
    )
    return theme.finish(figure, ageing_finding(found), words)


def _place(mitigation: str) -> int:
    return _REMEDIES.index(mitigation) if mitigation in _REMEDIES else len(_REMEDIES)


def _look(mitigation: str) -> tuple[str, str]:
    return REMEDY_LOOK.get(mitigation, (MUTED, "v"))


def _name_axes(
    axes: list[Axes], arm: memory_growth.Arm, remedies: list[str], *, timed: bool
) -> None:
    what = "reserved" if arm.occupied == "reserved_bytes" else "resident"
    axes[0].set_ylabel(f"{what} memory\nagainst the first (MiB)")
    if timed:
        axes[1].set(ylabel="latency (ms)", ylim=(0, axes[1].get_ylim()[1] * 1.06))
    axes[-1].set_yticks(range(len(remedies)), remedies)
    axes[-1].set_ylim(len(remedies) - 0.5, -0.5)


def _draw_cycles(
    ax: Axes, found: list[memory_growth.Arm], quantity: str, *, unit: float, above_first: bool
) -> None:
    for arm in found:
        values = pd.to_numeric(arm.cycles[quantity], errors="coerce").to_numpy(dtype=float)
        cycle = arm.cycles["cycle"].to_numpy(dtype=float)
        stretches = np.array_split(np.arange(len(cycle)), min(_POINTS, len(cycle)))
        shown = np.array([np.median(values[own]) for own in stretches])
        colour, marker = _look(arm.mitigation)
        ax.plot(
            [float(np.mean(cycle[own])) for own in stretches],
            (shown - (values[0] if above_first else 0.0)) / unit,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            linestyle=DASHES[_place(arm.mitigation) % len(DASHES)],
            color=colour,
            label=f"remedy: {arm.mitigation}",
        )


def _draw_slopes(ax: Axes, found: list[memory_growth.Arm], remedies: list[str]) -> None:
    ax.axvline(0, color=GUIDE, linewidth=1)
    ax.grid(visible=False, axis="y")
    for arm in found:
        slope, y = arm.slope(arm.occupied), remedies.index(arm.mitigation)
        colour, marker = _look(arm.mitigation)
        if np.isfinite(slope.value):
            ax.hlines(y, slope.low / MIB, slope.high / MIB, color=colour, linewidth=2.4)
            ax.plot(slope.value / MIB, y, marker, color=colour, markersize=8, mec="white")
        else:
            ax.text(
                0.02,
                y,
                "too few cycles",
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=10,
                color=MUTED,
            )


def ageing_finding(found: list[memory_growth.Arm]) -> str:
    """Which arms leave memory growing, judged by the interval of the trend."""
    slopes: dict[str, Interval] = {arm.name: arm.slope(arm.occupied) for arm in found}
    known = {name: slope for name, slope in slopes.items() if np.isfinite(slope.value)}
    if not known:
        return "Too few cycles to see a trend"
    growing = [name for name, slope in known.items() if slope.low > 0]
    if not growing:
        return "No growth can be told from zero, under any strategy and remedy"
    worst = max(growing, key=lambda name: known[name].value)
    words = f"{known[worst].value / MIB:.3g} MiB per {memory_growth.PER_CYCLES} cycles ({worst})"
    step = next(arm for arm in found if arm.name == worst).single_step(found[0].occupied)
    if step is not None:
        words += f", most of it in one step of {step / MIB:.3g} MiB"
    if len(known) == 1:
        return f"Memory grows by {words}"
    most = "by" if len(growing) == 1 else "at most by"
    return f"Memory grows in {len(growing)} of {len(known)} arms, {most} {words}"
