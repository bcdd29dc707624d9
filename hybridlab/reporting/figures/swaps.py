"""What a swap is made of: its stages by variant, in ms."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.palette import STAGE_LOOK
from hybridlab.reporting.tables import swap_seconds, swap_spans
from hybridlab.units import format_seconds

#: The variant whose copies run behind other work.
HIDDEN = "arena-overlapped"


@style.styled(
    spans=("case_id", "request_id", "tenant", "phase", "start_s", "end_s", "bytes"),
    cases=("case_id", "experiment", "strategy", "variant", "status"),
)
def swap_stages(spans: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Horizontal bars, one per variant: the median of each stage of a request's swaps, stacked."""
    timed = spans[spans["start_s"].notna() & spans["end_s"].notna()]
    table = swap_seconds(timed, cases)
    if table.empty:
        return style.nothing_to_show("No swap was recorded.")
    race = cases[(cases["experiment"] == "race") & (cases["strategy"] == "swapping")]
    table = table.loc[[name for name in race["variant"].unique() if name in table.index]]
    figure, ax = style.new_axes(style.rows_height(len(table)))
    left = np.zeros(len(table))
    for stage in table.columns:
        colour, hatch = STAGE_LOOK[stage]
        width = table[stage].to_numpy() * 1e3
        ax.barh(
            range(len(table)),
            width,
            left=left,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
        )
        left += width
    counts = swap_spans(timed, cases).query("stage == 'release'")["variant"].value_counts()
    names = [f"{name}\n(n = {counts[name]}{_behind(str(name))})" for name in table.index]
    seen = table.drop(index=HIDDEN, errors="ignore").sum(axis=1)
    best = list(table.index).index(seen.idxmin()) if len(seen) else None
    marks.name_rows(ax, names, best=best)
    ax.set_xlabel("all stages of a request's swaps (ms)")
    totals = table.sum(axis=1)
    marks.note_column(ax, [(y, format_seconds(total)) for y, total in enumerate(totals)])
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=stage)
        for stage, (colour, hatch) in STAGE_LOOK.items()
        if stage in table
    ]
    marks.legend_below(ax, handles=handles, columns=6)
    words = caption(
        race,
        cases,
        n=f"{wording.counted(int(counts.sum()), 'swap')}, first requests left out",
        interval="no interval: medians of stages",
    )
    return style.finish(figure, _finding(totals), words)


def _behind(variant: str) -> str:
    return ", copies behind work" if variant == HIDDEN else ""


def _finding(totals: pd.Series[float]) -> str:
    """The cheapest swap that hides nothing, against the reload; totals in s by variant."""
    seen = totals.drop(HIDDEN, errors="ignore")
    if seen.empty:
        return f"{HIDDEN} swaps in {format_seconds(float(totals.iloc[0]))}, behind other work"
    best = str(seen.idxmin())
    text = f"{best} takes {format_seconds(float(seen[best]))} to swap"
    if "reload-warm" in seen and best != "reload-warm":
        reload_s = float(seen["reload-warm"])
        text += f", reload-warm {format_seconds(reload_s)}: "
        text += f"{reload_s / float(seen[best]):.3g} times as long"
    return text
