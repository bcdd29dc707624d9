"""The frame that all figures share: theme, complete tables, title, small print, saving."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

from hybridlab.analysis.case_status import invalid_words
from hybridlab.reporting.palette import MUTED
from hybridlab.reporting.rows import complete_tables, present
from hybridlab.results.reader import has_clock
from hybridlab.simulation import NO_TIMES
from hybridlab.units import format_seconds

P = ParamSpec("P")

WIDTH_IN = 9.0  # at 150 dpi 1350 px; half of that is still read
DPI = 150
CAPTION_POINTS = 10.0
LEGEND_POINTS = 10.5
_TITLE_POINTS = 14.0
#: Characters of a line of the title, the small print and a figure that only has words.
_TITLE_CHARACTERS, _CAPTION_CHARACTERS, _WORDS_CHARACTERS = 68, 116, 70
#: A number and its unit are never apart at the end of a line.
_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|[GMK]iB|B)(?:\W|$))")
NO_CLOCK = f"No times: {NO_TIMES}."
_EDGE = 0.012  # of the width, left of title and caption

_RC: Any = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=1.05),
    "axes.titlesize": 12,
    "figure.titlesize": _TITLE_POINTS,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "hatch.linewidth": 0.6,
    "font.family": "sans-serif",
    # the first ships with matplotlib: the same picture everywhere; an SVG, whose text stays text,
    # is shown where it may be missing, and the others are as wide
    "font.sans-serif": ["DejaVu Sans", "Bitstream Vera Sans", "Verdana"],
    "svg.fonttype": "none",
    "svg.hashsalt": "hybridlab",
}


def styled(*, timed: bool = False) -> Callable[[Callable[P, Figure]], Callable[P, Figure]]:
    """Draw under the theme without touching matplotlib's global state, from complete tables.

    timed: the figure is one of times; of a simulated card it then says why there are none, and of
    invalid cases how many they are.
    """

    def decorate(plot: Callable[P, Figure]) -> Callable[P, Figure]:
        draw = complete_tables(plot)

        @functools.wraps(plot)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
            tables = [t for t in (*args, *kwargs.values()) if isinstance(t, pd.DataFrame)]
            with mpl.rc_context(_RC), _times(timed):
                if timed and not all(map(has_clock, tables)):
                    return nothing_to_show(NO_CLOCK)
                figure = draw(*args, **kwargs)
                if timed and not figure.axes:  # there was nothing to show
                    lost = [words for table in tables if (words := _lost(table))]
                    return nothing_to_show(f"No times: {lost[0]}.") if lost else figure
                return figure

        return wrapper

    return decorate


def _lost(table: pd.DataFrame) -> str:
    """Why a table of cases has no times; '' of any other table."""
    return invalid_words(table) if {"status", "experiment"} <= set(table.columns) else ""


def new_figure(height_in: float) -> Figure:
    """An empty figure that lays itself out; never registered with pyplot."""
    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def new_axes(height_in: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = new_figure(height_in)
    return figure, figure.add_subplot()


def rows_height(rows: int, *, each_in: float = 0.52) -> float:
    """Height of a figure with one horizontal bar per row, in inches."""
    return 2.2 + each_in * max(rows, 2)


def finish(figure: Figure, title: str, caption: str) -> Figure:
    """Write the finding above, and below the legend and the small print, in height added for them.

    Constrained layout would put a legend and a caption outside the axes into the same place.
    """
    figure.suptitle("\n".join(_lines(title, _TITLE_CHARACTERS)), x=_EDGE, ha="left", va="top")
    lines = _lines(caption, _CAPTION_CHARACTERS)
    caption_in = 0.12 + len(lines) * CAPTION_POINTS * 1.35 / 72
    heights = [legend.get_window_extent().height / figure.dpi for legend in figure.legends]
    legend_in = max(heights, default=-0.08) + 0.08
    total = figure.get_figheight() + caption_in + legend_in
    figure.set_figheight(total)
    small: dict[str, Any] = {"va": "bottom", "fontsize": CAPTION_POINTS, "color": MUTED}
    figure.text(_EDGE, 0.06 / total, "\n".join(lines), linespacing=1.3, **small)
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.0, caption_in / total), transform=figure.transFigure)
    below = (caption_in + legend_in) / total
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, below, 1, 1 - below))
    return figure


def _lines(text: str, width: int) -> list[str]:
    """Words wrapped at `width` characters; a number and its unit stay together."""
    whole = _UNIT.sub("\N{NO-BREAK SPACE}", text.strip())
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


#: Whether the figure that is drawn is one of times.
_OF_TIMES: ContextVar[bool] = ContextVar("of times", default=False)


@contextmanager
def _times(timed: bool) -> Iterator[None]:
    token = _OF_TIMES.set(timed)
    try:
        yield
    finally:
        _OF_TIMES.reset(token)


def nothing_to_show(what: str) -> Figure:
    """A figure that states in words what is missing."""
    figure = new_figure(1.6)
    text = "\n".join(_lines(what, _WORDS_CHARACTERS))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, fontsize=13)
    return figure


# ------------------------------------------------------------------------------------- small print

BOOTSTRAP = "bootstrap 95 % interval"
STUDENT = "Student's 95 % interval"
MEMORY_LIMITED = "inside a memory limit (bytes speak for the smaller card, times do not)"


def captioned(
    figure: Figure, title: str, rows: pd.DataFrame, cases: pd.DataFrame | None, **words: Any
) -> Figure:
    """The figure with its finding above and its `caption` below; of times it says in the title how
    many cases are invalid."""
    if _OF_TIMES.get() and cases is not None and "experiment" in rows:
        own = cases[cases["experiment"].isin(rows["experiment"].unique())]
        lost = invalid_words(own)
        title = f"{title}; {lost}" if lost else title
    return finish(figure, title, caption(rows, cases, **words))


def caption(
    rows: pd.DataFrame,
    cases: pd.DataFrame | None,
    *,
    n: str,
    interval: str,
    notes: tuple[str, ...] = (),
    sampled: bool = False,
) -> str:
    """All that a figure's numbers need beside them.

    rows: what is drawn, of any table.
    cases: the table of cases, whose rows say where the weights come from; None where it is not at
        hand, and the caption says so.
    n: what was counted.
    interval: what the bars or brackets mean, or why there are none.
    sampled: whether the bytes were sampled, so that the interval of the sampler counts.
    """
    own = pd.DataFrame()
    if cases is not None and "case_id" in rows:
        own = cases[cases["case_id"].isin(rows["case_id"].unique())]
    words = [f"n = {n}", interval, *notes, _weights(own)]
    words += [_sampling(own)] if sampled else []
    words += [_device(own if len(own) else rows)]
    # the no-break space keeps the dot at the end of a line
    return "\N{NO-BREAK SPACE}· ".join(word for word in words if word)


def origin(cases: pd.DataFrame) -> list[str]:
    """Which weights, and where."""
    return [_weights(cases), _device(cases)]


def _weights(cases: pd.DataFrame) -> str:
    found = {
        role: sorted({str(source) for source in present(cases, f"{role}_weights")})
        for role in ("llm", "asr")
    }
    if found["llm"] == found["asr"] == ["random"]:
        return "weights: random values, true sizes"
    words = [f"{role} {'/'.join(sources)}" for role, sources in found.items() if sources]
    return f"weights: {', '.join(words) or 'not recorded'}"


def _sampling(cases: pd.DataFrame) -> str:
    intervals = present(cases, "sampler_interval_s")
    if intervals.empty:
        return ""
    words = f"sampled every {format_seconds(float(intervals.median()))}"
    gaps = present(cases, "sampler_longest_gap_s")
    return words + (f" (longest gap {format_seconds(float(gaps.max()))})" if len(gaps) else "")


def _device(table: pd.DataFrame) -> str:
    """'device cpu, no memory limit set' as far as the rows say."""
    names = sorted({str(name) for name in present(table, "device")})
    limited = present(table, "memory_limited").astype(bool).any()
    inside = MEMORY_LIMITED if limited else "no memory limit set"
    return f"device {', '.join(names) or 'not recorded'}, {inside}"


# ------------------------------------------------------------------------------------------ files


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.png` (150 dpi) and `.svg`; the same figure gives the same bytes.

    The finding and the small print go into the files' metadata (an SVG's `<title>` and its
    description), where the report finds its alternative text.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = [" ".join(text.get_text().split()) for text in figure.texts]
    title = " ".join(figure.get_suptitle().split()) or words[0]
    described = {"Title": title, "Description": words[-1]}
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None, **described},
        "svg": {"Date": None, "Creator": None, **described},
    }
    paths = []
    with mpl.rc_context(_RC):
        _settle(figure)
        for kind, values in metadata.items():
            path = folder / f"{name}.{kind}"
            figure.savefig(path, dpi=DPI, facecolor="white", metadata=values)
            paths.append(path)
    return paths


def _settle(figure: Figure) -> None:
    """Lay the axes out once, to a millionth of the figure: the solver's last digits vary."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # the placeholder of "none" has each file drawn twice
    for ax in figure.axes:
        ax.set_position(Bbox.from_bounds(*(round(value, 6) for value in ax.get_position().bounds)))
