"""Figure of the break-even map: interval between arrivals (s) against length of the audio (s)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from hybridlab.plots import style, wording
from hybridlab.waiting import break_even as ratios_of
from hybridlab.waiting import service_times

CONTROL = "sequential / plain"
#: Ratios beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 2.0
#: Latencies closer than this ratio are called even.
EVEN = 1.05


@style.styled
def break_even(trials: pd.DataFrame) -> Figure:
    """One panel per arm: its mean latency over that of the control, derived from measured service
    times; below 1 the arm is the better choice."""
    services = service_times(trials)
    cells = ratios_of(services, control=CONTROL)
    if cells.empty:
        return style.nothing_to_show("No requests of several lengths were timed, so no break-even.")
    arms = list(cells["arm"].unique())
    rows = cells["audio_s"].nunique()
    figure = style.new_figure(1.5 + len(arms) * (0.9 + 0.42 * rows))
    axes = figure.subplots(len(arms), 1, squeeze=False, sharex=True)[:, 0]
    for ax, arm in zip(axes, arms, strict=True):
        _draw(ax, str(arm), cells[cells["arm"] == arm])
    axes[-1].set_xlabel("mean time between arrivals (s), Poisson")
    caption = wording.caption_of(
        None,
        "derived from measured service times by the Pollaczek-Khinchine formula",
        f"n = {int(services['n'].sum())} requests, {int(services['n'].min())} for each length",
        "∞: requests come faster than this arm serves them; 0: than only the control does; "
        "–: than both do",
        wording.device_words(trials),
    )
    return style.finish(figure, _finding(cells), caption)


def _draw(ax: Axes, arm: str, cells: pd.DataFrame) -> None:
    table = cells.pivot(index="audio_s", columns="interval_s", values="ratio").sort_index()
    shown = table.clip(lower=LEAST, upper=MOST).to_numpy(dtype=float)
    norm: Any = TwoSlopeNorm(1.0, LEAST, MOST)
    ax.imshow(shown, cmap="PuOr_r", norm=norm, aspect="auto", alpha=0.85)
    for (y, x), value in np.ndenumerate(table.to_numpy(dtype=float)):
        dark = np.isfinite(shown[y, x]) and abs(norm(shown[y, x]) - 0.5) > 0.35
        ax.text(x, y, _cell(value), ha="center", va="center", color="white" if dark else "black")
    ax.set_yticks(range(len(table)), [f"{seconds:g} s of audio" for seconds in table.index])
    ax.set_xticks(range(table.shape[1]), [f"{seconds:.2g}" for seconds in table.columns])
    ax.grid(visible=False)
    ax.set_title(f"{arm}: mean latency over that of {CONTROL}", loc="left")


def _cell(ratio: float) -> str:
    if np.isnan(ratio):
        return "–"
    return "∞" if np.isinf(ratio) else f"{ratio:.2f}"


def _finding(cells: pd.DataFrame) -> str:
    words = []
    for arm, own in cells.groupby("arm", sort=False):
        told = own[own["ratio"].notna()]
        better, even = told[told["ratio"] < 1 / EVEN], told[told["ratio"] <= EVEN]
        if len(better):
            words.append(f"{arm} beats {CONTROL} in {len(better)} of {len(told)} cells")
        elif len(even):
            share = (
                f"in {len(even)} of {len(told)} cells" if len(even) < len(told) else "everywhere"
            )
            words.append(f"{arm} is within {EVEN - 1:.0%} of {CONTROL} {share}")
        else:
            lowest = told["ratio"].min()
            words.append(f"{arm} beats {CONTROL} nowhere ({lowest:.2f} times its latency at best)")
    return "; ".join(words)
