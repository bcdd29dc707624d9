"""What a swap is made of: its stages by variant, in ms."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import HIDDEN, swap_finding
from hybridlab.reporting.palette import STAGE_LOOK
from hybridlab.reporting.rows import RACE, cases_of
from hybridlab.reporting.tables import swap_seconds, swap_spans
from hybridlab.units import counted, format_seconds


@theme.styled(timed=True)
def swap_stages(spans: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Horizontal bars, one per variant: the median of each stage of a request's swaps, stacked."""
    timed = spans[spans["start_s"].notna() & spans["end_s"].notna()]
    table = swap_seconds(timed, cases)
    if table.empty:
        return theme.nothing_to_show("No swap was recorded.")
    race = cases_of(cases, RACE)
    race = race[race["strategy"] == "swapping"]
    table = table.loc[[name for name in race["variant"].unique() if name in table.index]]
    stacks = [{str(stage): s for stage, s in row.items()} for row in table.to_dict("records")]
    figure, ax = theme.new_axes(theme.rows_height(len(table)))
    elements.draw_stacks(ax, stacks, STAGE_LOOK, unit=1e-3)
    counts = swap_spans(timed, cases).query("stage == 'release'")["variant"].value_counts()
    behind = dict.fromkeys(HIDDEN, ", copies behind work")
    names = [f"{name}\n(n = {counts[name]}{behind.get(name, '')})" for name in table.index]
    totals = table.sum(axis=1)
    seen = totals.drop(HIDDEN, errors="ignore")
    best = list(table.index).index(seen.idxmin()) if len(seen) else None
    elements.name_rows(ax, names, best=best)
    ax.set_xlabel("all stages of a request's swaps (ms)")
    elements.note_column(ax, enumerate(map(format_seconds, totals)))
    elements.stack_legend(ax, stacks, STAGE_LOOK, names={}, columns=6)
    return theme.captioned(
        figure,
        swap_finding(totals),
        race,
        cases,
        n=f"{counted(int(counts.sum()), 'swap')}, first requests left out",
        interval="no interval: medians of stages",
    )
