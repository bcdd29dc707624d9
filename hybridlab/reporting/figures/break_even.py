"""Figure of the break-even map: interval between arrivals (s) against length of the audio (s)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.queueing import break_even as ratios_of
from hybridlab.analysis.queueing import service_times
from hybridlab.reporting import labels
from hybridlab.reporting.figures import theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.heatmap import draw_ratios, ratio_words
from hybridlab.reporting.ordering import strategies_first

CONTROL = "sequential/plain"
#: Ratios beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 2.0
#: Latencies closer than this ratio are called even.
EVEN = 1.05


@theme.styled(
    trials=("experiment", "strategy", "variant", "audio_s", "latency_s", "is_first_request")
)
def break_even(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """One panel per arm: its mean latency over that of the control, derived from measured service
    times; below 1 the arm is the better choice."""
    services = service_times(trials[trials["latency_s"] > 0])
    cells = ratios_of(services, control=CONTROL)
    if cells.empty:
        return theme.nothing_to_show("No requests of several lengths were timed, so no break-even.")
    arms = strategies_first(list(cells["arm"].unique()))
    figure = theme.new_figure(1.5 + len(arms) * (0.9 + 0.42 * cells["audio_s"].nunique()))
    axes = figure.subplots(len(arms), 1, squeeze=False, sharex=True)[:, 0]
    for ax, arm in zip(axes, arms, strict=True):
        _draw(ax, arm, cells[cells["arm"] == arm])
    axes[-1].set_xlabel("mean time between arrivals (s), Poisson")
    requests = labels.counted(int(services["n"].sum()), "request")
    words = caption(
        trials[trials["experiment"] == "service_times"],
        cases,
        n=f"{requests}, {int(services['n'].min())} or more for each length",
        interval="no interval: derived from mean service times by the Pollaczek-Khinchine formula",
        notes=(
            "∞: requests come faster than this arm serves them; 0: than only the control does; "
            "–: than both do",
        ),
    )
    title = "; ".join(_finding(arm, cells[cells["arm"] == arm]) for arm in arms)
    return theme.finish(figure, title, words)


def _draw(ax: Axes, arm: str, cells: pd.DataFrame) -> None:
    table = cells.pivot(index="audio_s", columns="interval_s", values="ratio").sort_index()
    table.index = pd.Index([f"{seconds:g} s of audio" for seconds in table.index])
    table.columns = pd.Index([f"{seconds:.2g}" for seconds in table.columns])
    draw_ratios(ax, table, table.map(ratio_words), least=LEAST, most=MOST)
    ax.set_title(f"{arm}: mean latency over that of {CONTROL}", loc="left")


def _finding(arm: str, own: pd.DataFrame) -> str:
    known = own[own["ratio"].notna()]
    better, even = known[known["ratio"] < 1 / EVEN], known[known["ratio"] <= EVEN]
    if len(better):
        return f"{arm} beats {CONTROL} in {len(better)} of {len(known)} cells"
    if len(even):
        share = f"in {len(even)} of {len(known)} cells" if len(even) < len(known) else "everywhere"
        return f"{arm} is within {100 * (EVEN - 1):.0f} % of {CONTROL} {share}"
    lowest = known["ratio"].min()
    return f"{arm} beats {CONTROL} nowhere ({lowest:.2f} times its latency at best)"
