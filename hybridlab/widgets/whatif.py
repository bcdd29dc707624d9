"""What if requests had to be answered sooner, or with more memory to spare? The recommendation and
the Pareto front again, from the run's own rows."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd

from hybridlab.analysis.arms import ArmStats, standings
from hybridlab.analysis.recommendation import Recommendation, Requirements, pair_of, select
from hybridlab.reporting.findings import pareto_front
from hybridlab.reporting.labels import EMPTY, gib, number, percent
from hybridlab.units import GIB
from hybridlab.widgets.html import framed, output, table

RULES = (
    "● on the front: no other arm that keeps all is both faster and smaller; ○ keeps all; ✗ does "
    "not. How each arm holds a rate of requests stands in the tables of 05 and 06."
)


def comparable_arms(cases: pd.DataFrame, trials: pd.DataFrame) -> list[ArmStats]:
    """The arms of a run that have a control to be held against, fastest first."""
    arms = [arm for arm in standings(cases, trials) if not math.isnan(arm.relative.value)]
    return sorted(arms, key=lambda arm: (arm.relative.value, arm.arm))


def whatif_html(arms: list[ArmStats], pair: str, asked: Requirements) -> str:
    """The pick in a sentence, and every arm with what it costs and what it does not keep."""
    if not arms:
        return "<p>No race case can be compared: run the notebooks 04 to 06 first.</p>"
    lacks = {arm.arm: [*filter(None, [arm.failed]), *asked.broken_by(arm)] for arm in arms}
    kept = [arm for arm in arms if not lacks[arm.arm]]
    front = pareto_front([arm for arm in kept if not math.isnan(arm.peak_bytes)])
    shown = table(
        {
            "pick": f"<b>{'●' if arm in front else '○' if arm in kept else '✗'}</b>",
            "strategy": escape(arm.arm),
            "latency / control": f"{arm.relative.value:.2f}",
            "peak GiB": gib(arm.peak_bytes),
            "p95 s": number(arm.p95_s),
            "margin GiB": gib(arm.margin_bytes),
            "WER": percent(arm.wer).replace(" ", "&nbsp;"),
            "what it does not keep": escape("; ".join(lacks[arm.arm])) or EMPTY,
        }
        for arm in arms
    )
    pick = _pick(select(arms, pair=pair, asked=asked))
    return framed(pick, f"<p>{escape(pair)}. {RULES}</p>", shown)


def _pick(pick: Recommendation | None) -> str:
    if pick is None:
        return '<p role="status"><b>No way of sharing that was measured keeps all that.</b></p>'
    behind = f"Behind it: {pick.runner_up}, {pick.why_not}." if pick.runner_up else ""
    return (
        f'<p role="status">Recommended: <b class="pick">{pick.strategy}/{pick.variant}</b>, '
        f"{escape(pick.why)}.<br>{escape(behind)}<br>{escape(' '.join(pick.notes))}</p>"
    )


def what_if(cases: pd.DataFrame, trials: pd.DataFrame) -> Any:
    """Sliders over `whatif_html`; one at the end of its way asks for nothing."""
    import ipywidgets as widgets

    arms = comparable_arms(cases, trials)
    pair = pair_of(cases) if arms else ""
    view = output()
    most_p95 = 1.05 * _highest([arm.p95_s for arm in arms])
    most_margin = _highest([arm.margin_bytes for arm in arms]) / GIB
    most_wer = 100.0 if math.isfinite(_highest([arm.wer for arm in arms])) else math.nan
    p95, margin, wer = (
        _slider("max p95, s", most_p95, most_p95),
        _slider("min margin, GiB", most_margin, 0.0),
        _slider("max WER, %", most_wer, most_wer),
    )

    def update(_: Any = None) -> None:
        asked = Requirements.asked(
            max_p95_s=0.0 if p95.value >= p95.max else p95.value,
            min_margin_bytes=margin.value * GIB,
            max_wer=1.0 if wer.value >= wer.max else wer.value / 100,
        )
        view.value = whatif_html(arms, pair, asked)

    for slider in (p95, margin, wer):
        slider.observe(update, names="value")
    update()
    return widgets.VBox([p95, margin, wer, view])


def _highest(values: list[float]) -> float:
    """Not-a-number where none is known."""
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _slider(words: str, most: float, start: float) -> Any:
    """A slider over round values up to the first one that is not below `most`; where nothing is
    known to choose among it is off and asks for nothing."""
    import ipywidgets as widgets

    style = {"description_width": "120px"}
    layout = {"width": "min(100%, 640px)"}
    if not most > 0:
        off = {"disabled": True, "readout": False, "description": f"{words}: –"}
        return widgets.FloatSlider(value=0.0, max=0.0, style=style, layout=layout, **off)
    step = round_step(most)
    end = step * math.ceil(round(most / step, 6))
    return widgets.FloatSlider(
        value=end if start >= most else start,
        min=0.0,
        max=end,
        step=step,
        description=words,
        readout_format=f".{max(0, -math.floor(math.log10(step)))}f",
        style=style,
        layout=layout,
    )


def round_step(most: float) -> float:
    """1, 2 or 5 times a power of ten: the smallest that makes at most 200 steps."""
    decade = 10.0 ** math.floor(math.log10(most / 200))
    return next(n * decade for n in (1, 2, 5, 10) if most / (n * decade) <= 200)
