"""Figure of the edge: how much memory may be taken away before a request fails."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.analysis.stats import Array, Interval, bootstrap_interval
from hybridlab.reporting.figures import marks, order, style, wording
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.palette import DASHES, strategy_look
from hybridlab.reporting.tables import least_rooms
from hybridlab.units import MIB, format_bytes


@style.styled(
    probes=("case_id", "ask", "survived", "repeat", "value"), cases=("case_id", "strategy")
)
def survival(probes: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Share of requests that survive as memory is taken away, per strategy: from left to right less
    and less room is left above the resident pair."""
    rooms = least_rooms(probes, cases)
    rooms = rooms[rooms["room_bytes"].notna()]
    if rooms.empty:
        return style.nothing_to_show("No request was squeezed, so there is no survival to show.")
    figure, ax = style.new_axes(4.8)
    most = float(rooms["room_bytes"].max()) * 1.25 or float(MIB)
    for place, strategy in enumerate(order.strategies_first(list(rooms["strategy"].unique()))):
        own = rooms.loc[rooms["strategy"] == strategy, "room_bytes"].to_numpy(dtype=float)
        _draw(ax, strategy, own, most, place)
    ax.set(xlim=(most / MIB, 0), ylim=(-3, 106))
    ax.set_xlabel("memory left above the resident pair (MiB), ever more of it taken away  →")
    ax.set_ylabel("requests that survive (%)")
    marks.legend_below(ax, columns=1)
    words = caption(
        rooms,
        cases,
        n=f"{wording.counted(len(rooms), 'request')}, each bisected with real failures",
        interval=f"brackets: {BOOTSTRAP} of the median",
        notes=("mark: a request fails with less room than this",),
    )
    return style.finish(figure, _finding(rooms), words)


def _draw(ax: Axes, strategy: str, rooms: Array, most: float, place: int) -> None:
    """A falling curve: all survive with most room, none without any."""
    falling = np.sort(rooms)[::-1]
    alive = 1 - np.arange(1, len(falling) + 1) / len(falling)
    marker, colour = strategy_look(strategy)
    ax.step(
        np.concatenate([[most], falling, [0.0]]) / MIB,
        np.concatenate([[1.0], alive, [0.0]]) * 100,
        where="post",
        color=colour,
        linestyle=DASHES[place % len(DASHES)],
        linewidth=2.2,
        marker=marker,
        markersize=8,
        markevery=slice(1, len(falling) + 1),
        label=f"{strategy} (n = {len(rooms)}): half fail below {_need(bootstrap_interval(rooms))}",
    )


def _need(room: Interval) -> str:
    words = format_bytes(room.value)
    if np.isfinite(room.low):
        words += f" [{format_bytes(room.low)}, {format_bytes(room.high)}]"
    return words


def _finding(rooms: pd.DataFrame) -> str:
    needs = {
        str(strategy): bootstrap_interval(own["room_bytes"])
        for strategy, own in rooms.groupby("strategy", sort=False)
    }
    first, *others = sorted(needs, key=lambda name: -needs[name].value)
    room = format_bytes(needs[first].value)
    ties = [name for name in others if needs[first].overlaps(needs[name])]
    if ties:
        words = (
            f"{first} needs most in the median, {room} above the resident pair, but its interval "
            f"overlaps that of {wording.first_and_more(ties)}"
        )
    else:
        words = f"{first} breaks first: it needs {room} above the resident pair"
        if others:
            words += f", {others[-1]} {format_bytes(needs[others[-1]].value)}"
    return words[:1].upper() + words[1:]
