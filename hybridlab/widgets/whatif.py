"""What if requests came faster, or had to be answered sooner? The recommendation and the Pareto
front again, from the run's own rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import pandas as pd

from hybridlab.analysis.arms import ArmStats, standings
from hybridlab.analysis.queueing import KNEE_RATIO, Arrivals, AtRate
from hybridlab.analysis.recommendation import Recommendation, Requirements, pair_of, select
from hybridlab.reporting.findings import pareto_front
from hybridlab.reporting.labels import EMPTY, gib, number, percent
from hybridlab.units import GIB
from hybridlab.widgets.html import framed, output, table

RULES = (
    "● on the front: no other arm that keeps all is both faster and smaller; ○ keeps all; ✗ does "
    f"not. A rate is held up to the knee: p95 within {KNEE_RATIO:g} times that at the lowest rate "
    f"offered. Where no such rate was offered, the mean latency must be within {KNEE_RATIO:g} "
    "times the service time; it is <i>derived</i> from measured service times by the "
    "Pollaczek-Khinchine formula, and p95 is then without waiting."
)


@dataclass(frozen=True, kw_only=True)
class Race:
    """The rows of a run, read once: arms that can be compared, and what is known of waiting."""

    arms: list[ArmStats]
    pair: str
    arrivals: Arrivals

    @classmethod
    def of(cls, cases: pd.DataFrame, trials: pd.DataFrame) -> Race:
        arms = [arm for arm in standings(cases, trials) if not math.isnan(arm.relative.value)]
        arms.sort(key=lambda arm: (arm.relative.value, arm.arm))
        pair = pair_of(cases, trials) if arms else ""
        return cls(arms=arms, pair=pair, arrivals=Arrivals.of(cases, trials))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What follows from the constraints; `broken` and `waiting` are by arm."""

    recommendation: Recommendation | None
    front: list[ArmStats]
    broken: Mapping[str, list[str]]
    waiting: Mapping[str, AtRate]


def whatif(race: Race, constraints: Requirements, *, rate_rps: float = 0.0) -> Outcome:
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
        recommendation=select(kept, pair=race.pair) if kept else None,
        front=pareto_front([arm for arm in kept if not math.isnan(arm.peak_bytes)]),
        broken=broken,
        waiting=waiting,
    )


def whatif_html(race: Race, constraints: Requirements, *, rate_rps: float = 0.0) -> str:
    """The pick in a sentence, and every arm with what it costs and what it does not keep."""
    if not race.arms:
        return "<p>No race case can be compared: run the notebooks 04 to 06 first.</p>"
    found = whatif(race, constraints, rate_rps=rate_rps)
    shown = table(_row(arm, found) for arm in race.arms)
    return framed(_pick(found), f"<p>{escape(race.pair)}. {RULES}</p>", shown)


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
        f'<p role="status">Recommended: <b class="pick">{pick.strategy}/{pick.variant}</b>, '
        f"{escape(pick.why)}.{second}<br>{escape(pick.flip_words)}</p>"
    )


def _row(arm: ArmStats, found: Outcome) -> dict[str, str]:
    broken, now = found.broken[arm.arm], found.waiting.get(arm.arm)
    waited = now is not None and not math.isnan(now.p95_s)
    p95_s = now.p95_s if now is not None and waited else arm.p95_s
    return {
        "pick": f"<b>{'✗' if broken else '●' if arm in found.front else '○'}</b>",
        "strategy": escape(arm.arm),
        "latency / control": f"{arm.relative.value:.2f}",
        "peak GiB": gib(arm.peak_bytes),
        "p95 s": number(p95_s) + (" waiting" if waited else ""),
        "margin GiB": gib(arm.margin_bytes),
        "WER": percent(arm.wer).replace(" ", "&nbsp;"),
        "at this rate": escape(now.words) if now else EMPTY,
        "what it does not keep": escape("; ".join(broken)) or EMPTY,
    }


# ---------------------------------------------------------------------------------- the controls


def what_if(cases: pd.DataFrame, trials: pd.DataFrame) -> Any:
    """Sliders over `whatif_html`; one at the end of its way asks for nothing."""
    import ipywidgets as widgets

    race = Race.of(cases, trials)
    view = output()
    sliders = {name: _slider(*asked) for name, asked in _ranges(race).items()}

    def update(_: Any = None) -> None:
        rate, p95, margin, wer = (slider.value for slider in sliders.values())
        constraints = Requirements(
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
