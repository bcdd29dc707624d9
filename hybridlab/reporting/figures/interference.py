"""Figure of interference: how many times longer a phase takes beside each phase of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.interference import slowdowns
from hybridlab.reporting.figures import style
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.heat import Heat, ratio_words
from hybridlab.reporting.figures.lanes import PHASE_LOOK

#: Slowdowns beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 3.0
PARTIES = {"voxtral": "Voxtral", "whisper": "Whisper", "copy": "weights"}
_NAMES = [f"{party} {phase}" for party in PARTIES.values() for phase in PHASE_LOOK]


@style.styled(spans=("experiment", "request_id", "tenant", "phase", "start_s", "end_s"))
def interference(spans: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Rows: who is slowed; columns: by whom; a cell has the factor and its 95 % interval."""
    own = spans[(spans["experiment"] == "interference") & spans["end_s"].notna()]
    found = slowdowns(own)
    found = found[np.isfinite(found["high"].astype(float))]  # the others could be anything
    if found.empty:
        return style.nothing_to_show("No two parties were measured at once, so no interference.")
    cells = found.assign(
        slowed=found["tenant"].map(PARTIES) + " " + found["phase"],
        by=found["other"].map(PARTIES) + " " + found["other_phase"],
    )
    rows, columns = (
        sorted(cells[name].unique(), key=lambda n: _NAMES.index(n) if n in _NAMES else len(_NAMES))
        for name in ("slowed", "by")
    )
    table = cells.pivot(index="slowed", columns="by", values="slowdown").loc[rows, columns]
    figure, ax = style.new_axes(1.6 + 0.56 * len(rows))
    heat = Heat(ax, table, least=LEAST, most=MOST)
    ax.set_xticks(range(len(columns)), [name.replace(" ", "\n", 1) for name in columns])
    ax.xaxis.tick_top()
    for (y, x), value in np.ndenumerate(table.to_numpy(dtype=float)):
        ax.text(
            x,
            y,
            ratio_words(value),
            va="center" if np.isnan(value) else "bottom",
            **heat.look(y, x),
        )
    for _, cell in cells.iterrows():
        y, x = rows.index(str(cell["slowed"])), columns.index(str(cell["by"]))
        span = f"{ratio_words(cell['low'], 1)}–{ratio_words(cell['high'], 1)}"
        ax.text(x, y + 0.08, span, va="top", fontsize=9.5, **heat.look(y, x))
    words = caption(
        own,
        cases,
        n=f"{int(cells['n'].min())} spans or more for each row",
        interval=f"small: {BOOTSTRAP}",
        notes=(
            "rows: times as long as alone, beside what heads the column, by least squares",
            "–: too seldom at once to tell",
        ),
    )
    return style.finish(figure, _finding(cells), words)


def _finding(cells: pd.DataFrame) -> str:
    sure = cells[cells["low"] > 1]
    if sure.empty:
        return "No phase is slowed beyond the noise by what runs beside it"
    worst = sure.sort_values("low").iloc[-1]
    slowed = str(worst["slowed"])
    return (
        f"{slowed[0].upper()}{slowed[1:]} suffers most: {worst['slowdown']:.2f} times as long "
        f"beside {worst['by']}"
    )
