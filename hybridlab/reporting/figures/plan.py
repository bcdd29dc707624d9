"""Figure of foresight: what the planner says each pair takes. Axes in GiB."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from hybridlab import catalog, planner
from hybridlab.planner import PairPlan
from hybridlab.reporting.figures import marks, order, style, wording
from hybridlab.reporting.figures.wording import spare_words

#: From so many rows on they stand closer.
MANY = 12


@style.styled()
def plan_bars(plans: Sequence[PairPlan]) -> Figure:
    """Predicted bytes of each pair, stacked by owner, against the card's capacity."""
    if not plans:
        return style.nothing_to_show("No plan was given, so no prediction is drawn.")
    plans = _ordered(plans)
    each_in = 0.42 if len(plans) < MANY else 0.3
    figure, ax = style.new_axes(style.rows_height(len(plans), each_in=each_in))
    stacks = [_stack(plan) for plan in plans]
    marks.draw_stacks(ax, stacks)
    marks.name_rows(ax, [f"{plan.whisper} {plan.backend} {plan.dtype}" for plan in plans])
    longest = max(plan.total_bytes for plan in plans)
    marks.draw_capacity(ax, {plan.capacity_bytes for plan in plans}, longest)
    notes = [
        f"{'✓ fits' if plan.fits else '✗ does not fit'}, {spare_words(plan.margin_bytes)}"
        for plan in plans
    ]
    marks.note_column(ax, enumerate(notes))
    ax.set_xlabel("predicted memory (GiB)")
    marks.legend_below(ax, handles=marks.owner_handles(stacks))
    dtypes = ", ".join(sorted({plan.voxtral_dtype for plan in plans}))
    cards = ", ".join(sorted({plan.card for plan in plans}))
    caption = (
        f"n = {wording.counted(len(plans), 'prediction')}, nothing measured, so no interval · "
        f"Voxtral in {dtypes} · weights: true sizes from the catalog · card {cards}, no envelope"
    )
    return style.finish(figure, _finding(plans), caption)


def _ordered(plans: Sequence[PairPlan]) -> list[PairPlan]:
    rows = pd.DataFrame({"experiment": "plan", "whisper_size": [plan.whisper for plan in plans]})
    return [plans[int(place)] for place in order.ordered(rows).index]


def _stack(plan: PairPlan) -> dict[str, float]:
    voxtral = planner.voxtral_weights_bytes(catalog.voxtral(plan.voxtral), dtype=plan.voxtral_dtype)
    loads = plan.load_peak_bytes >= plan.request_peak_bytes
    return {
        "base": plan.steady_bytes - plan.weights_bytes,
        "voxtral": voxtral,
        "whisper": plan.weights_bytes - voxtral,
        "load" if loads else "request": plan.total_bytes - plan.steady_bytes,
    }


def _finding(plans: Sequence[PairPlan]) -> str:
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        least = min(plans, key=lambda plan: plan.total_bytes)
        return f"No pair is predicted to fit: {least.whisper} is {spare_words(least.margin_bytes)}"
    largest = max(fitting, key=lambda plan: plan.total_bytes)
    words = f"{largest.whisper} in {largest.dtype}"
    if len(plans) == 1:
        return f"{words} is predicted to fit with {spare_words(largest.margin_bytes)}"
    return (
        f"{len(fitting)} of {len(plans)} pairs are predicted to fit; the largest of them, {words}, "
        f"has {spare_words(largest.margin_bytes)}"
    )
