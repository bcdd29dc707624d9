"""Figure of interference: how many times longer a phase takes beside each phase of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hybridlab.analysis.phase_slowdown import slowdowns
from hybridlab.reporting import labels
from hybridlab.reporting.figures import theme
from hybridlab.reporting.figures.captions import BOOTSTRAP, caption
from hybridlab.reporting.figures.gantt import PHASE_LOOK
from hybridlab.reporting.figures.heatmap import draw_ratios, ratio_words

#: Slowdowns beyond these have the colour of the end of the scale.
LEAST, MOST = 0.5, 3.0
PARTIES = {**labels.ROLES, "copy": "weights"}
_NAMES = [f"{party} {phase}" for party in PARTIES.values() for phase in PHASE_LOOK]


@theme.styled(spans=("experiment", "request_id", "role", "phase", "start_s", "end_s"))
def interference(spans: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Rows: who is slowed; columns: by whom; a cell has the factor and its 95 % interval."""
    own = spans[(spans["experiment"] == "interference") & spans["end_s"].notna()]
    found = slowdowns(own)
    found = found[np.isfinite(found["high"].astype(float))]  # the others could be anything
    if found.empty:
        return theme.nothing_to_show("No two parties were measured at once, so no interference.")
    cells = found.assign(
        slowed=found["role"].map(PARTIES) + " " + found["phase"],
        by=found["other"].map(PARTIES) + " " + found["other_phase"],
    )
    cells["words"] = [_cell_words(cell) for _, cell in cells.iterrows()]
    rows, columns = (sorted(cells[name].unique(), key=_place) for name in ("slowed", "by"))
    factors, words = (
        cells.pivot(index="slowed", columns="by", values=name).loc[rows, columns]
        for name in ("slowdown", "words")
    )
    figure, ax = theme.new_axes(1.6 + 0.56 * len(rows))
    draw_ratios(ax, factors, words.fillna(labels.EMPTY), least=LEAST, most=MOST)
    ax.set_xticklabels([name.replace(" ", "\n", 1) for name in columns])
    ax.xaxis.tick_top()
    return theme.finish(
        figure,
        _finding(cells),
        caption(
            own,
            cases,
            n=f"{int(cells['n'].min())} spans or more for each row",
            interval=f"in brackets: {BOOTSTRAP}",
            notes=(
                "rows: times as long as alone, beside what heads the column, by least squares",
                "–: too seldom at once to tell",
            ),
        ),
    )


def _place(name: str) -> int:
    return _NAMES.index(name) if name in _NAMES else len(_NAMES)


def _cell_words(cell: pd.Series[float]) -> str:
    low, high = (ratio_words(cell[name], 1) for name in ("low", "high"))
    return f"{ratio_words(cell['slowdown'])}\n[{low}–{high}]"


def _finding(cells: pd.DataFrame) -> str:
    sure = cells[cells["low"] > 1]
    if sure.empty:
        return "No phase is slowed beyond the noise by what runs beside it"
    worst = sure.sort_values("low").iloc[-1]
    slowed = labels.capital(str(worst["slowed"]))
    return f"{slowed} suffers most: {worst['slowdown']:.2f} times as long beside {worst['by']}"
