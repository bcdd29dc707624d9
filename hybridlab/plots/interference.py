"""Figure of interference: how many times longer a phase takes beside each phase of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from hybridlab.interference import slowdowns
from hybridlab.plots import style, wording

#: Slowdowns beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 3.0
PARTIES = {"voxtral": "Voxtral", "whisper": "Whisper", "copy": "weights"}


@style.styled
def interference(spans: pd.DataFrame) -> Figure:
    """Rows: who is slowed; columns: by whom; a cell has the factor and its 95 % interval."""
    found = slowdowns(spans[spans["experiment"] == "interference"] if len(spans) else spans)
    found = found[np.isfinite(found["high"].astype(float))]  # the others could be anything
    if found.empty:
        return style.nothing_to_show("No two parties were measured at once, so no interference.")
    cells = found.assign(
        slowed=found["tenant"].map(PARTIES) + " " + found["phase"],
        by=found["other"].map(PARTIES) + "\n" + found["other_phase"],
    )
    rows, columns = list(cells["slowed"].unique()), list(cells["by"].unique())
    table = cells.pivot(index="slowed", columns="by", values="slowdown").loc[rows, columns]
    figure, ax = style.new_axes(1.6 + 0.56 * len(rows))
    shown = table.clip(lower=LEAST, upper=MOST).to_numpy(dtype=float)
    norm: Any = TwoSlopeNorm(1.0, LEAST, MOST)
    ax.imshow(shown, cmap="PuOr_r", norm=norm, aspect="auto", alpha=0.85)
    for _, cell in cells.iterrows():
        y, x = rows.index(str(cell["slowed"])), columns.index(str(cell["by"]))
        dark = abs(norm(shown[y, x]) - 0.5) > 0.35
        look: dict[str, Any] = {"ha": "center", "color": "white" if dark else "black"}
        ax.text(x, y, _factor(cell["slowdown"]), va="bottom", **look)
        span = f"{_factor(cell['low'], 1)}–{_factor(cell['high'], 1)}"
        ax.text(x, y + 0.08, span, va="top", fontsize=9.5, **look)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xticks(range(len(columns)), columns)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    caption = wording.caption_of(
        None,
        "times as long as alone, by least squares over spans, and the bootstrap 95 % interval",
        f"n = {int(cells['n'].min())} spans or more for each row",
        "empty: too seldom at once to tell",
        wording.device_words(spans),
    )
    return style.finish(figure, _finding(cells), caption)


def _factor(value: float, digits: int = 2) -> str:
    return "∞" if np.isinf(value) else f"{value:.{digits}f}"


def _finding(cells: pd.DataFrame) -> str:
    sure = cells[cells["low"] > 1]
    if sure.empty:
        return "No phase is slowed beyond the noise by what runs beside it"
    worst = sure.sort_values("low").iloc[-1]
    beside = str(worst["by"]).replace("\n", " ")
    slowed = str(worst["slowed"])
    return (
        f"{slowed[0].upper()}{slowed[1:]} suffers most: {worst['slowdown']:.2f} times as long "
        f"beside {beside}"
    )
