"""Heat maps of ratios around 1: where another arm beats the control, and which phase slows which.
Colour says the direction, the cell's words the number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from hybridlab.analysis.phase_slowdown import slowdowns
from hybridlab.analysis.queueing import break_even as ratios_of
from hybridlab.analysis.queueing import service_times
from hybridlab.analysis.stats import LEAST_READINGS, holm
from hybridlab.reporting import labels
from hybridlab.reporting.figures import theme
from hybridlab.reporting.palette import PHASE_LOOK
from hybridlab.reporting.rows import CONTROL, strategies_first
from hybridlab.units import counted

PARTIES = {**labels.ROLES, "copy": "weights"}
#: How much of a colour is on the ground: black words are read on all of the scale.
PALE = 0.5
_NAMES = [f"{party} {phase}" for party in PARTIES.values() for phase in PHASE_LOOK]


def draw_ratios(ax: Axes, table: pd.DataFrame, words: pd.DataFrame, *, most: float) -> None:
    """A table of ratios from violet (below 1) to orange (above), with `words` of the same shape;
    what lies beyond 0.5 and `most` has the colour of the end of the scale, an empty cell none."""
    shown = table.astype(float).clip(lower=0.5, upper=most).fillna(1.0)
    look: Any = {"annot": words, "fmt": "", "annot_kws": {"fontsize": 10, "color": "black"}}
    norm = TwoSlopeNorm(1.0, 0.5, most)
    sns.heatmap(
        shown, cmap="PuOr_r", norm=norm, alpha=PALE, linewidths=0.5, cbar=False, ax=ax, **look
    )
    ax.grid(visible=False)
    ax.tick_params(length=0, labelrotation=0)
    ax.set(xlabel="", ylabel="")


def ratio_words(ratio: float, digits: int = 2) -> str:
    """'1.24', '∞', and '–' where there is none."""
    if np.isnan(ratio):
        return labels.EMPTY
    return "∞" if np.isinf(ratio) else f"{ratio:.{digits}f}"


# ------------------------------------------------------------------------------------ break-even


@theme.styled(timed=True)
def break_even(trials: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """Interval between arrivals (s) against length of the audio (s), one panel per arm: its mean
    latency over that of the control, derived from measured service times; below 1 the arm is the
    better choice."""
    services = service_times(trials[trials["latency_s"] > 0])
    cells = ratios_of(services, control=CONTROL)
    if cells.empty:
        return theme.nothing_to_show("No requests of several lengths were timed, so no break-even.")
    arms = strategies_first(list(cells["arm"].unique()))
    figure = theme.new_figure(1.5 + len(arms) * (0.9 + 0.56 * cells["audio_s"].nunique()))
    axes = figure.subplots(len(arms), 1, squeeze=False, sharex=True)[:, 0]
    for ax, arm in zip(axes, arms, strict=True):
        _draw_arm(ax, arm, cells[cells["arm"] == arm])
    axes[-1].set_xlabel("mean time between arrivals (s), Poisson")
    requests = counted(int(services["n"].sum()), "request")
    return theme.captioned(
        figure,
        "; ".join(_break_even_finding(arm, cells[cells["arm"] == arm]) for arm in arms),
        trials[trials["experiment"] == "service_times"],
        cases,
        n=f"{requests}, {int(services['n'].min())} or more for each length",
        interval=f"in brackets: {theme.BOOTSTRAP} of the requests of one case",
        notes=(
            "derived from service times by the Pollaczek-Khinchine formula",
            "∞: requests come faster than this arm serves them; 0: than only the control does",
            f"–: than both do, the interval does not say, or fewer than {LEAST_READINGS} requests",
        ),
    )


def _draw_arm(ax: Axes, arm: str, cells: pd.DataFrame) -> None:
    cells = cells.assign(words=[_break_even_words(cell) for _, cell in cells.iterrows()])
    ratios, words = (
        cells.pivot(index="audio_s", columns="interval_s", values=name).sort_index()
        for name in ("ratio", "words")
    )
    for table in (ratios, words):
        table.index = pd.Index([f"{seconds:g} s of audio" for seconds in table.index])
        table.columns = pd.Index(
            [labels.number(float(f"{seconds:.2g}")) for seconds in table.columns]
        )
    draw_ratios(ax, ratios, words, most=2.0)
    ax.set_title(f"{arm}: mean latency over that of {CONTROL}", loc="left")


def _break_even_words(cell: pd.Series[Any]) -> str:
    """The ratio over its interval."""
    if not 0 < cell["ratio"] < np.inf:
        return ratio_words(cell["ratio"])
    return f"{cell['ratio']:.2f}\n[{cell['low']:.2f}–{cell['high']:.2f}]"


def _break_even_finding(arm: str, own: pd.DataFrame) -> str:
    known = own[own["ratio"].notna()]
    if known.empty:
        return f"Too few requests to tell where {arm} beats {CONTROL}"
    better, worse = (int(found.sum()) for found in (known["high"] < 1, known["low"] > 1))
    cells = counted(len(known), "cell")
    if not better and not worse:
        return f"{arm} is not told from {CONTROL} in any of {cells}"
    if not better:
        return f"{arm} beats {CONTROL} in none of {cells} and is beaten in {worse}"
    return f"{arm} beats {CONTROL} in {better} of {cells}"


# ---------------------------------------------------------------------------------- interference


@theme.styled(timed=True)
def interference(spans: pd.DataFrame, cases: pd.DataFrame | None = None) -> Figure:
    """How many times longer a phase takes beside each phase of the other model, with the 95 %
    interval. Rows: who is slowed; columns: by whom."""
    own = spans[(spans["experiment"] == "interference") & spans["end_s"].notna()]
    cells = slowdowns(own)
    if cells.empty:
        return theme.nothing_to_show("No slowdown can be told: too few spans of two at once.")
    cells = cells.assign(
        slowed=cells["role"].map(PARTIES) + " " + cells["phase"],
        by=cells["other"].map(PARTIES) + " " + cells["other_phase"],
        words=[_cell_words(cell) for _, cell in cells.iterrows()],
    )
    rows, columns = (sorted(cells[name].unique(), key=_place) for name in ("slowed", "by"))
    factors, words = (
        cells.pivot(index="slowed", columns="by", values=name).loc[rows, columns]
        for name in ("slowdown", "words")
    )
    figure, ax = theme.new_axes(1.6 + 0.56 * len(rows))
    draw_ratios(ax, factors, words.fillna(labels.EMPTY), most=3.0)
    ax.set_xticklabels([name.replace(" ", "\n", 1) for name in columns])
    ax.xaxis.tick_top()
    return theme.captioned(
        figure,
        _interference_finding(cells),
        own,
        cases,
        n=f"{int(cells['n'].min())} spans of one case or more for each row",
        interval=f"in brackets: {theme.STUDENT}",
        notes=(
            "rows: times as long as alone, beside what heads the column, by least squares",
            "–: too seldom at once to tell",
        ),
    )


def _place(name: str) -> int:
    return _NAMES.index(name) if name in _NAMES else len(_NAMES)


def _cell_words(cell: pd.Series[float]) -> str:
    low, high = (ratio_words(cell[name], 1) for name in ("low", "high"))
    return f"{ratio_words(cell['slowdown'])}\n[{low}–{high}]"


def _interference_finding(cells: pd.DataFrame) -> str:
    held = holm({place: 2 * chance for place, chance in enumerate(cells["chance"])})
    sure = cells.iloc[sorted(held)]
    if sure.empty:
        return "No phase is slowed beyond the noise by what runs beside it"
    worst = sure.sort_values("low").iloc[-1]
    slowed = labels.capital(str(worst["slowed"]))
    return f"{slowed} suffers most: {worst['slowdown']:.2f} times as long beside {worst['by']}"
