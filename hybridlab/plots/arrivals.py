"""Figure of an open loop: latency (s) against the rate at which requests come (1/s)."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.waiting import KNEE_RATIO, arrival_points, knees


@style.styled
def arrivals(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """p95 latency of each arm at each offered rate; a ring marks the last rate before the knee."""
    points = arrival_points(trials, cases)
    if points.empty:
        return style.nothing_to_show("No requests came at their own times, so there is no knee.")
    held = knees(points)
    figure, ax = style.new_axes(4.8)
    seen: dict[str, int] = {}
    for arm, own in points.groupby("arm", sort=False):
        ranked, strategy = own.sort_values("rate_rps"), str(own["strategy"].iloc[0])
        dash = style.DASHES[seen.get(strategy, 0) % len(style.DASHES)]
        seen[strategy] = seen.get(strategy, 0) + 1
        colour = style.STRATEGY_COLOURS.get(strategy, style.MUTED)
        ax.plot(
            ranked["rate_rps"],
            ranked["p95_s"],
            marker=style.STRATEGY_MARKERS.get(strategy, "o"),
            linestyle=dash,
            linewidth=2,
            markersize=7,
            color=colour,
            label=f"{arm} ({_knee_words(held[str(arm)], float(ranked['rate_rps'].max()))})",
        )
        knee = ranked[ranked["rate_rps"] == held[str(arm)]]
        ax.plot(knee["rate_rps"], knee["p95_s"], "o", mfc="none", mec=colour, markersize=15)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    ax.set_xlim(left=0)
    ax.set_xlabel("requests offered per second (Poisson)")
    ax.set_ylabel("p95 latency with waiting (s), logarithmic")
    style.legend_below(ax, columns=2)
    words = f"n = {int(points['n'].sum())} requests, {int(points['n'].min())} for each point"
    ring = f"ring: last rate with p95 within {KNEE_RATIO:g} times that at the lowest"
    caption = wording.caption_of(None, words, ring, wording.device_words(cases))
    return style.finish(figure, _finding(held, float(points["rate_rps"].max())), caption)


def _knee_words(knee: float, highest: float) -> str:
    return f"no knee up to {knee:.3g} / s" if knee == highest else f"knee at {knee:.3g} / s"


def _finding(held: dict[str, float], highest: float) -> str:
    if min(held.values()) == highest:
        return f"No arm reaches its knee up to {highest:.3g} requests per second"
    best, worst = max(held, key=lambda arm: held[arm]), min(held, key=lambda arm: held[arm])
    if held[best] == held[worst]:
        return f"All {len(held)} arms hold the same rate, {held[best]:.3g} requests per second"
    return (
        f"{best} holds {held[best]:.3g} requests per second before its knee, "
        f"{worst} {held[worst]:.3g}"
    )
