"""Figure of survival: how much memory may be taken away before a request fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.latency_ecdf import draw_ecdf
from hybridlab.reporting.ordering import strategies_first
from hybridlab.reporting.tables import least_rooms
from hybridlab.units import MIB, format_bytes


@theme.styled(
    probes=("case_id", "limit_kind", "succeeded", "repeat", "value"), cases=("case_id", "strategy")
)
def survival(probes: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Share of requests that survive as memory is taken away, per strategy: from left to right less
    and less room is left above the resident pair."""
    rooms = least_rooms(probes, cases)
    rooms = rooms[rooms["room_bytes"].notna()]
    if rooms.empty:
        return theme.nothing_to_show("No request was squeezed, so there is no survival to show.")
    figure, ax = theme.new_axes(4.8)
    needs: dict[str, Interval] = {}
    for place, strategy in enumerate(strategies_first(list(rooms["strategy"].unique()))):
        own = rooms.loc[rooms["strategy"] == strategy, "room_bytes"].astype(float)
        needs[strategy] = bootstrap_interval(own)
        label = f"{strategy} (n = {len(own)}): half fail below {_need(needs[strategy])}"
        draw_ecdf(ax, own / MIB, strategy, place, label, most=len(own))
    most = float(rooms["room_bytes"].max()) * 1.25 or float(MIB)
    ax.set(xlim=(most / MIB, 0), ylim=(-3, 106), ylabel="requests that survive (%)")
    ax.set_xlabel("memory left above the resident pair (MiB), ever more of it taken away  →")
    elements.legend_below(ax, columns=1)
    words = caption(
        rooms,
        cases,
        n=f"{labels.counted(len(rooms), 'request')}, each bisected with real failures",
        interval=f"brackets: {BOOTSTRAP} of the median",
        notes=("mark: a request fails with less room than this",),
    )
    return theme.finish(figure, _finding(needs), words)


def _need(room: Interval) -> str:
    words = format_bytes(room.value)
    if np.isfinite(room.low):
        words += f" [{format_bytes(room.low)}, {format_bytes(room.high)}]"
    return words


def _finding(needs: dict[str, Interval]) -> str:
    first, *others = sorted(needs, key=lambda name: -needs[name].value)
    room = format_bytes(needs[first].value)
    ties = [name for name in others if needs[first].overlaps(needs[name])]
    if ties:
        return labels.capital(
            f"{first} needs most in the median, {room} above the resident pair, but its interval "
            f"overlaps that of {labels.first_and_more(ties)}"
        )
    words = f"{first} breaks first: it needs {room} above the resident pair"
    if others:
        words += f", {others[-1]} {format_bytes(needs[others[-1]].value)}"
    return labels.capital(words)
