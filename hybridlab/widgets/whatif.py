"""What if requests came faster, or had to be answered sooner? The recommendation and the Pareto
front again, from the run's own rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pandas as pd

from hybridlab.analysis.recommendation import Constraints, Recommendation, choose, pair_of
from hybridlab.analysis.standings import Standing, standings
from hybridlab.analysis.waiting import KNEE_RATIO, Arrivals, AtRate
from hybridlab.reporting.figures.palette import MUTED, STRATEGY_COLOURS
from hybridlab.reporting.figures.pareto import pareto_front
from hybridlab.reporting.tables.words import gib, number, percent
from hybridlab.units import GIB
from hybridlab.widgets.page import framed, output, table

HEADER = (
    "pick",
    "strategy",
    "latency / control",
    "peak GiB",
    "p95 s",
    "margin GiB",
    "WER",
    "at this rate",
    "what it does not keep",
)
RULES = (
    "● on the front: no other arm that keeps all is both faster and smaller; ○ keeps all; ✗ does "
    f"not. A rate is held up to the knee: p95 within {KNEE_RATIO:g} times that at the lowest rate "
    f"offered. Where no such rate was offered, the mean latency must be within {KNEE_RATIO:g} "
    "times the service time; it is <i>derived</i> from measured service times by the "
    "Pollaczek-Khinchine formula, and p95 is then without waiting."
)
_BAR_PX = 60


@dataclass(frozen=True, kw_only=True)
class Race:
    """The rows of a run, read once: arms that can be compared, and what is known of waiting."""

    arms: list[Standing]
    pair: str
    arrivals: Arrivals

    @classmethod
    def of(cls, cases: pd.DataFrame, trials: pd.DataFrame) -> Race:
        arms = [arm for arm in standings(cases, trials) if not math.isnan(arm.relative.value)]
        arms.sort(key=lambda arm: (arm.relative.value, arm.name))
        pair = pair_of(cases, trials) if arms else ""
        return cls(arms=arms, pair=pair, arrivals=Arrivals.of(cases, trials))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What follows from the wishes; `broken` and `waiting` are by arm."""

    recommendation: Recommendation | None
    front: list[Standing]
    broken: Mapping[str, list[str]]
    waiting: Mapping[str, AtRate]


def whatif(race: Race, constraints: Constraints, *, rate_rps: float = 0.0) -> Outcome:
    """Arms that keep the constraints and hold the rate (requests/s; 0 asks for none). Where an
    arm's p95 was measured with waiting at that rate it counts in place of the race's."""
    waiting: dict[str, AtRate] = {}
    broken: dict[str, list[str]] = {}
    for arm in race.arms:
        held, p95_s = [], arm.p95_s
        if rate_rps > 0:
            now = waiting[arm.arm] = race.arrivals.at(arm, rate_rps)
            held = [] if now.holds else [f"{rate_rps:.3g} requests/s"]
            p95_s = arm.p95_s if math.isnan(now.p95_s) else now.p95_s
        broken[arm.arm] = constraints.broken_by(replace(arm, p95_s=p95_s)) + held
    kept = [arm for arm in race.arms if not broken[arm.arm]]
    return Outcome(
        recommendation=choose(kept, pair=race.pair) if kept else None,
        front=pareto_front([arm for arm in kept if not math.isnan(arm.peak_bytes)]),
        broken=broken,
        waiting=waiting,
    )


def whatif_html(race: Race, constraints: Constraints, *, rate_rps: float = 0.0) -> str:
    """The pick in a sentence, and every arm with what it costs and what it does not keep."""
    if not race.arms:
        return "<p>No race case can be compared: run the notebooks 04 to 06 first.</p>"
    found = whatif(race, constraints, rate_rps=rate_rps)
    rows = (_cells(arm, found, race.arms) for arm in race.arms)
    return framed(_pick(found), f"<p>{escape(race.pair)}. {RULES}</p>", table(HEADER, rows))


def _pick(found: Outcome) -> str:
    pick = found.recommendation
    if pick is None:
        return '<p role="status"><b>No way of sharing that was measured keeps all that.</b></p>'
    second = (
        f"<br>Behind it: {escape(pick.runner_up)}, {escape(pick.why_not)}."
        if pick.runner_up
        else ""
    )
    return (
        f'<p role="status">Recommended: <b class="pick">{pick.strategy} ({pick.variant})</b>, '
        f"{escape(pick.why)}.{second}<br>{escape(pick.flip_words)}</p>"
    )


def _cells(arm: Standing, found: Outcome, arms: list[Standing]) -> list[str]:
    broken, now = found.broken[arm.arm], found.waiting.get(arm.arm)
    sign = "✗" if broken else "●" if arm in found.front else "○"
    colour = "#c9c9c9" if broken else STRATEGY_COLOURS.get(arm.strategy, MUTED)
    slowest = max(a.relative.value for a in arms)
    highest = max((a.peak_bytes for a in arms if not math.isnan(a.peak_bytes)), default=1.0)
    waited = now is not None and not math.isnan(now.p95_s)
    p95_s = now.p95_s if now is not None and waited else arm.p95_s
    return [
        f"<b>{sign}</b>",
        escape(arm.name),
        _bar(arm.relative.value, f"{arm.relative.value:.2f}", slowest, colour),
        _bar(arm.peak_bytes, gib(arm.peak_bytes), highest, colour),
        number(p95_s) + (" waiting" if waited else ""),
        gib(arm.margin_bytes),
        percent(arm.wer).replace(" ", "&nbsp;"),
        escape(now.words) if now else "–",
        escape("; ".join(broken)) or "–",
    ]


def _bar(value: float, words: str, longest: float, colour: str) -> str:
    """A bar with its figure behind it, never apart from it; only the figure where it is missing."""
    width = 0.0 if math.isnan(value) else _BAR_PX * value / longest
    return (
        f'<span style="white-space:nowrap"><span style="display:inline-block;height:0.8em;'
        f'margin-right:6px;background:{colour};width:{width:.0f}px"></span>{words}</span>'
    )


# ---------------------------------------------------------------------------------- the controls


def what_if(cases: pd.DataFrame, trials: pd.DataFrame) -> Any:
    """Sliders over `whatif_html`; one at the end of its way asks for nothing."""
    import ipywidgets as widgets

    race = Race.of(cases, trials)
    view = output()
    sliders = {name: _slider(*asked) for name, asked in _ranges(race).items()}

    def update(_: Any = None) -> None:
        rate, p95, margin, wer = (slider.value for slider in sliders.values())
        constraints = Constraints(
            max_p95_s=math.inf if p95 >= sliders["p95"].max else p95,
            min_margin_bytes=int(margin * GIB),
            max_wer=math.inf if wer >= sliders["wer"].max else wer / 100,
        )
        view.value = whatif_html(race, constraints, rate_rps=rate)

    for slider in sliders.values():
        slider.observe(update, names="value")
    update()
    return widgets.VBox([*sliders.values(), view])


def _ranges(race: Race) -> dict[str, tuple[str, float, float]]:
    """Words, highest value and start of each slider, so that every arm can be asked in and out."""

    def highest(values: list[float]) -> float:
        return max((value for value in values if math.isfinite(value)), default=1.0)

    waited = list(race.arrivals.points["p95_s"]) if len(race.arrivals.points) else []
    p95 = 1.05 * highest([arm.p95_s for arm in race.arms] + waited)
    return {
        "rate": ("requests/s", 1.2 * highest([arm.throughput_rps for arm in race.arms]), 0.0),
        "p95": ("max p95, s", p95, p95),
        "margin": ("min margin, GiB", highest([arm.margin_bytes for arm in race.arms]) / GIB, 0.0),
        "wer": ("max WER, %", 100.0, 100.0),
    }


def _slider(words: str, most: float, start: float) -> Any:
    import ipywidgets as widgets

    return widgets.FloatSlider(
        value=start,
        min=0.0,
        max=most,
        step=most / 200,
        description=words,
        readout_format=".3g",
        style={"description_width": "120px"},
        layout={"width": "480px"},
    )
