"""The figure of ageing: memory and latency over many cycles, per strategy and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab import wear
from hybridlab.plots import style, wording
from hybridlab.stats import Interval
from hybridlab.units import MIB

_LOOK: dict[str, tuple[str, str]] = {
    "none": ("#222222", "o"),
    "empty-cache": (style.OWNER_COLOURS["request"], "s"),
    "expandable-segments": (style.OWNER_COLOURS["load"], "^"),
    "restart": (style.STRATEGY_COLOURS["swapping"], "D"),
}
#: Points of a line: of more cycles the medians of so many stretches are drawn.
_POINTS = 40


@style.styled
def ageing(cycles: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """What is occupied after each cycle against the first, and latency, a column per strategy."""
    if cycles.empty:
        return style.nothing_to_show("No memory was read after cycles of requests.")
    found = list(wear.arms(cycles))
    strategies = list(dict.fromkeys(arm.strategy for arm in found))
    figure = style.new_figure(6.6)
    axes = figure.subplots(2, len(strategies), squeeze=False, sharex=True, sharey="row")
    for column, strategy in enumerate(strategies):
        own = [arm for arm in found if arm.strategy == strategy]
        _draw(axes[0][column], own, found[0].occupied, unit=MIB, above_first=True)
        _draw(axes[1][column], own, "latency_s", unit=1e-3, above_first=False)
        axes[0][column].axhline(0, color="#888888", linewidth=1)
        axes[0][column].set_title(strategy, loc="left")
        axes[1][column].set_xlabel("cycle (one request each)")
    axes[0][0].set_ylabel(f"{_occupied_words(found)} after\nthe cycle, against the first (MiB)")
    axes[1][0].set(ylabel="latency (ms)", ylim=(0, axes[1][0].get_ylim()[1] * 1.06))
    style.legend_below(axes[0][0], columns=4)
    most = int(cycles.groupby(["strategy", "remedy"])["cycle"].nunique().max())
    caption = wording.caption_of(
        cases[cases["case_id"].isin(cycles["case_id"])],
        f"n = {most} cycles per strategy and remedy",
        f"lines: medians of up to {_POINTS} stretches of cycles",
        "trend: least squares without the first fifth, 95 % interval for dependent readings",
    )
    return style.finish(figure, ageing_finding(found), caption)


def _occupied_words(found: list[wear.Arm]) -> str:
    return "reserved memory" if found[0].occupied == "reserved_bytes" else "resident memory"


def _draw(
    ax: Axes, found: list[wear.Arm], quantity: str, *, unit: float, above_first: bool
) -> None:
    for number, arm in enumerate(found):
        values = pd.to_numeric(arm.cycles[quantity], errors="coerce").to_numpy(dtype=float)
        cycle = arm.cycles["cycle"].to_numpy(dtype=float)
        stretches = np.array_split(np.arange(len(cycle)), min(_POINTS, len(cycle)))
        shown = np.array([np.median(values[own]) for own in stretches])
        colour, marker = _LOOK.get(arm.remedy, (style.MUTED, "v"))
        ax.plot(
            [float(np.mean(cycle[own])) for own in stretches],
            (shown - (values[0] if above_first else 0.0)) / unit,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            linestyle=style.DASHES[number % len(style.DASHES)],
            color=colour,
            label=f"remedy: {arm.remedy}",
        )


def ageing_finding(found: list[wear.Arm]) -> str:
    """Which arms leave memory growing, judged by the interval of the trend."""
    slopes: dict[str, Interval] = {arm.name: arm.slope(arm.occupied) for arm in found}
    known = {name: slope for name, slope in slopes.items() if np.isfinite(slope.value)}
    if not known:
        return "Too few cycles to see a trend"
    growing = [name for name, slope in known.items() if slope.low > 0]
    if not growing:
        return "No growth can be told from zero, under any strategy and remedy"
    worst = max(growing, key=lambda name: known[name].value)
    words = f"{known[worst].value / MIB:.3g} MiB per {wear.PER_CYCLES} cycles ({worst})"
    step = next(arm for arm in found if arm.name == worst).single_step(found[0].occupied)
    if step is not None:
        words += f", most of it in one step of {step / MIB:.3g} MiB"
    if len(known) == 1:
        return f"Memory grows by {words}"
    most = "by" if len(growing) == 1 else "at most by"
    return f"Memory grows in {len(growing)} of {len(known)} arms, {most} {words}"
