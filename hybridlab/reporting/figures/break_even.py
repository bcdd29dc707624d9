"""Figure of the break-even map: interval between arrivals (s) against length of the audio (s)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.waiting import break_even as ratios_of
from hybridlab.analysis.waiting import service_times
from hybridlab.reporting.figures import order, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.heat import Heat, ratio_words

CONTROL = "sequential / plain"
#: Ratios beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 2.0
#: Latencies closer than this ratio are called even.
EVEN = 1.05
_CONTROL_WORDS = wording.arm_words(CONTROL)


@style.styled(trials=("experiment", "strategy", "variant", "audio_s", "latency_s", "first"))
def break_even(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """One panel per arm: its mean latency over that of the control, derived from measured service
    times; below 1 the arm is the better choice."""
    services = service_times(trials[trials["latency_s"] > 0])
    cells = ratios_of(services, control=CONTROL)
    if cells.empty:
        return style.nothing_to_show("No requests of several lengths were timed, so no break-even.")
    cells = cells.assign(arm=cells["arm"].map(wording.arm_words))
    arms = order.strategies_first(list(cells["arm"].unique()))
    rows = cells["audio_s"].nunique()
    figure = style.new_figure(1.5 + len(arms) * (0.9 + 0.42 * rows))
    axes = figure.subplots(len(arms), 1, squeeze=False, sharex=True)[:, 0]
    for ax, arm in zip(axes, arms, strict=True):
        _draw(ax, arm, cells[cells["arm"] == arm])
    axes[-1].set_xlabel("mean time between arrivals (s), Poisson")
    own = trials[trials["experiment"] == "lengths"]
    requests = wording.counted(int(services["n"].sum()), "request")
    words = caption(
        own,
        cases,
        n=f"{requests}, {int(services['n'].min())} or more for each length",
        interval="no interval: derived from mean service times by the Pollaczek-Khinchine formula",
        notes=(
            "∞: requests come faster than this arm serves them; 0: than only the control does; "
            "–: than both do",
        ),
    )
    return style.finish(figure, _finding(cells, arms), words)


def _draw(ax: Axes, arm: str, cells: pd.DataFrame) -> None:
    table = cells.pivot(index="audio_s", columns="interval_s", values="ratio").sort_index()
    named = table.set_axis([f"{seconds:g} s of audio" for seconds in table.index], axis="index")
    named = named.set_axis([f"{seconds:.2g}" for seconds in table.columns], axis="columns")
    heat = Heat(ax, named, least=LEAST, most=MOST)
    for (y, x), value in np.ndenumerate(table.to_numpy(dtype=float)):
        ax.text(x, y, ratio_words(value), va="center", **heat.look(y, x))
    ax.set_title(f"{arm}: mean latency over that of {_CONTROL_WORDS}", loc="left")


def _finding(cells: pd.DataFrame, arms: list[str]) -> str:
    return "; ".join(_arm_finding(arm, cells[cells["arm"] == arm]) for arm in arms)


def _arm_finding(arm: str, own: pd.DataFrame) -> str:
    told = own[own["ratio"].notna()]
    better, even = told[told["ratio"] < 1 / EVEN], told[told["ratio"] <= EVEN]
    if len(better):
        return f"{arm} beats {_CONTROL_WORDS} in {len(better)} of {len(told)} cells"
    if len(even):
        share = f"in {len(even)} of {len(told)} cells" if len(even) < len(told) else "everywhere"
        return f"{arm} is within {EVEN - 1:.0%} of {_CONTROL_WORDS} {share}".replace("%", " %")
    lowest = told["ratio"].min()
    return f"{arm} beats {_CONTROL_WORDS} nowhere ({lowest:.2f} times its latency at best)"
