"""Figure of predictions: what the planner says each pair takes. Axes in GiB."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from hybridlab import catalog, planner
from hybridlab.planner import PairPlan
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.ordering import SIZES

#: From so many rows on they stand closer.
MANY = 12


@theme.styled()
def plan_bars(plans: Sequence[PairPlan]) -> Figure:
    """Predicted bytes of each pair, stacked by owner, against the card's capacity."""
    if not plans:
        return theme.nothing_to_show("No plan was given, so no prediction is drawn.")
    plans = sorted(plans, key=lambda plan: SIZES.index(plan.asr_model))
    each_in = 0.42 if len(plans) < MANY else 0.3
    figure, ax = theme.new_axes(theme.rows_height(len(plans), each_in=each_in))
    stacks = [_stack(plan) for plan in plans]
    elements.draw_stacks(ax, stacks)
    elements.name_rows(
        ax, [f"{plan.asr_model} {plan.asr_backend} {plan.asr_dtype}" for plan in plans]
    )
    longest = max(plan.total_bytes for plan in plans)
    elements.draw_capacity(ax, {plan.capacity_bytes for plan in plans}, longest)
    notes = [
        f"{'✓ fits' if plan.fits else '✗ does not fit'}, {labels.spare(plan.margin_bytes)}"
        for plan in plans
    ]
    elements.note_column(ax, enumerate(notes))
    ax.set_xlabel("predicted memory (GiB)")
    elements.stack_legend(ax, stacks)
    dtypes = ", ".join(sorted({plan.llm_dtype for plan in plans}))
    cards = ", ".join(sorted({plan.card for plan in plans}))
    caption = (
        f"n = {labels.counted(len(plans), 'prediction')}, nothing measured, so no interval · "
        f"Voxtral in {dtypes} · weights: true sizes from the catalog · card {cards}, no memory "
        "limit"
    )
    return theme.finish(figure, _finding(plans), caption)


def _stack(plan: PairPlan) -> dict[str, float]:
    voxtral = planner.voxtral_weights_bytes(catalog.voxtral(plan.llm_model), dtype=plan.llm_dtype)
    loads = plan.load_peak_bytes >= plan.request_peak_bytes
    return {
        "base": plan.idle_bytes - plan.weights_bytes,
        "llm": voxtral,
        "asr": plan.weights_bytes - voxtral,
        "load" if loads else "request": plan.total_bytes - plan.idle_bytes,
    }


def _finding(plans: Sequence[PairPlan]) -> str:
    fitting = [plan for plan in plans if plan.fits]
    if not fitting:
        least = min(plans, key=lambda plan: plan.total_bytes)
        return (
            f"No pair is predicted to fit: {least.asr_model} is {labels.spare(least.margin_bytes)}"
        )
    largest = max(fitting, key=lambda plan: plan.total_bytes)
    words, margin = (
        f"{largest.asr_model} in {largest.asr_dtype}",
        labels.spare(largest.margin_bytes),
    )
    if len(plans) == 1:
        return f"{words} is predicted to fit with {margin}"
    return (
        f"{len(fitting)} of {len(plans)} pairs are predicted to fit; the largest of them, {words}, "
        f"has {margin}"
    )
