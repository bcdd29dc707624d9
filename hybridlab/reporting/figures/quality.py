"""What a better text costs in memory: each model alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import quality_finding
from hybridlab.reporting.palette import MODEL_MARKERS, OWNER_COLOURS
from hybridlab.reporting.tables.quality import RULE, qualities
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import GIB, MIB, counted, format_number


@theme.styled()
def quality_memory(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """A row per model alone on the reader's clips, best first: its word error rate with the
    interval, the most bytes that it took, and how fast it transcribes."""
    found = [one for one in qualities(trials, cases) if one.peak_bytes > 0]
    if not found:
        return theme.nothing_to_show(
            "No model's text was held against a reference (no quality_models, weights without "
            "text, or clips without a reference)."
        )
    figure = theme.new_figure(theme.rows_height(len(found)))
    wer, memory = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    unit, name = (GIB, "GiB") if max(one.peak_bytes for one in found) > GIB else (MIB, "MiB")
    for y, one in enumerate(found):
        colour = OWNER_COLOURS[one.role]
        wer.hlines(y, one.wer.low * 100, one.wer.high * 100, color=colour, linewidth=2.4)
        wer.plot(one.wer.value * 100, y, MODEL_MARKERS[one.role], color=colour, ms=11)
        memory.barh(y, one.peak_bytes / unit, height=0.6, color=colour)
    elements.name_rows(wer, [f"{one.name}\n({one.word})" for one in found])
    memory.grid(visible=False, axis="y")
    speeds = [f"RTFx {format_number(one.rtfx.value)}" if one.rtfx.n else "" for one in found]
    elements.note_column(memory, enumerate(speeds))
    wer.set_xlim(left=min(0.0, wer.get_xlim()[0]))
    wer.set_xlabel("word error rate (%)")
    memory.set_xlabel(f"memory at the peak ({name})")
    n_cut = sum(one.cut for one in found)
    cut = counted(n_cut, "text") if n_cut else ""
    no_speed = f"no RTFx: {'other processes were at work' if has_clock(cases) else NO_TIMES}"
    speed = "RTFx: seconds of audio per second of work, median without the first clip"
    return theme.captioned(
        figure,
        quality_finding(found),
        cases[cases["experiment"] == "quality"],
        cases,
        n=f"{counted(max(one.clips for one in found), 'clip')}, each model alone",
        interval=f"bar: {theme.BOOTSTRAP} over clips",
        notes=(
            *([f"{cut} cut short and left out"] if cut else []),
            speed if any(speeds) else no_speed,
            "memory without the empty process",
            RULE,
        ),
        sampled=True,
    )
