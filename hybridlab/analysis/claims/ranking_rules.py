"""Rules that hold strategies against each other.

They speak of the device and the weights that were measured and of nothing else; every reason
names both. Fewer than five trials, overlapping intervals and missing arms are inconclusive.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from hybridlab import catalog, planner
from hybridlab.analysis.arms import (
    CONTROL,
    LEAST_TRIALS,
    ArmStats,
    compare,
    least_difference_bytes,
    main_pair,
    numbers,
    race_cases,
    timed_trials,
)
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, Verdict, no_rows, supported_if
from hybridlab.analysis.claims.memory_and_time_rules import (
    Share,
    Stated,
    arm_trials,
    model_spans,
    plain_arm,
    range_result,
    with_model_times,
)
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.catalog import Card
from hybridlab.units import GB, format_bytes, format_number

#: The strategies that the document compares.
COMPARED = ("sequential", "parallel", "swapping")
RESIDENCY_TOLERANCE = 0.1
#: Beyond it two models are at work together: spans are read a moment apart.
MOST_OVERLAP_SHARE = 0.01

Figure = Literal["peak_bytes", "latency", "throughput"]
Patterns = Annotated[list[str], Field(min_length=1)]
Limit = Annotated[float, Field(ge=1)]

# -------------------------------------------------------------------------------------- order


@rule("extreme")
def extreme(
    run: RunData,
    *,
    strategy: str,
    figure: Literal["peak_bytes", "latency"],
    end: Literal["highest", "lowest"],
) -> ClaimResult:
    """A strategy is the highest or the lowest of the three in one figure: its own extreme variant
    against the extreme variant of each of the others."""
    wanted = 1 if end == "highest" else -1
    arms = _extremes(run.standings, figure, wanted)
    lack = [name for name in COMPARED if name not in arms]
    if lack:
        return no_rows(f"no finished race case of {', '.join(lack)}")
    own = arms.pop(strategy)
    lead = f"beyond {own.arm}: "
    return _against_others(
        run, own, arms, figure, wanted, supported=f"{own.arm} is {end}", refuted=lead
    )


def _compared(strategy: str) -> list[str]:
    """Arms of a strategy as the document means it: its claims say nothing of batches, an
    orchestrator or weights that wait in host memory."""
    known = catalog.strategy(strategy)
    return [f"{strategy}/{own.name}" for own in known if not (own.streams or own.host_copy)]


def _extremes(arms: Iterable[ArmStats], figure: Figure, wanted: int) -> dict[str, ArmStats]:
    """Each strategy's variant with the highest (1) or lowest (-1) figure."""
    known = [arm for arm in arms if not math.isnan(_value(arm, figure).value)]
    return {
        name: max(own, key=lambda arm: wanted * _value(arm, figure).value)
        for name in COMPARED
        if (own := [arm for arm in known if arm.arm in _compared(name)])
    }


def _against_others(
    run: RunData,
    own: ArmStats,
    others: dict[str, ArmStats],
    figure: Figure,
    wanted: int,
    *,
    supported: str,
    refuted: str,
) -> ClaimResult:
    """Whether no other strategy's arm lies farther towards the `wanted` end than this one;
    `refuted` is followed by those that do."""
    signs: list[int | None] = []
    for other in others.values():
        left, right = _value(own, figure), _value(other, figure)
        least = 0.0 if figure == "latency" else least_difference_bytes(left, right)
        sign = compare(left, right, least=least)
        signs.append(None if sign is None else sign * wanted)
    beyond = [name for name, sign in zip(others, signs, strict=True) if sign == -1]
    arms = [own, *others.values()]
    return _ordered(
        run,
        signs,
        measured="; ".join(_figure_text(arm, figure) for arm in arms),
        supported=supported,
        refuted=refuted + " and ".join(beyond),
        arms=arms,
    )


def _value(arm: ArmStats, figure: Figure) -> Interval:
    return {"peak_bytes": arm.peak, "latency": arm.relative, "throughput": arm.rate}[figure]


def _figure_text(arm: ArmStats, figure: Figure) -> str:
    shown = {
        "peak_bytes": format_bytes(arm.peak_bytes),
        "latency": f"{show_ratio(arm.relative)} of its control",
        "throughput": f"{format_number(arm.throughput_rps)} requests/s",
    }
    return f"{arm.arm} {shown[figure]}, n = {arm.n}"


def show_ratio(values: Interval) -> str:
    """'1.24 x [1.20, 1.29]'."""
    return f"{values.value:.2f} x [{values.low:.2f}, {values.high:.2f}]"


def _ordered(
    run: RunData,
    signs: Sequence[int | None],
    *,
    measured: str,
    supported: str,
    refuted: str,
    arms: Iterable[ArmStats],
) -> ClaimResult:
    """An order from comparisons that are 1 for it, -1 against it, 0 for no difference."""
    verdict: Verdict = "inconclusive"
    if -1 in signs:
        verdict, reason = "refuted", refuted
    elif None in signs:
        reason = f"a figure is missing or stands on fewer than {LEAST_TRIALS} trials"
    elif 0 in signs:
        reason = "intervals overlap, or the difference is too small to count"
    else:
        verdict, reason = "supported", supported
    ids = [case_id for arm in arms for case_id in arm.case_ids]
    return run.result(verdict, reason, measured=measured, case_ids=ids)


@rule("faster", subject="times")
def faster(
    run: RunData,
    *,
    arms: Patterns,
    than: Patterns,
    figure: Literal["latency", "throughput"] = "latency",
) -> ClaimResult:
    """The best arm of those named by 'strategy/variant' patterns beats the best of others."""
    wanted, better = (-1, "faster") if figure == "latency" else (1, "higher in throughput")
    best = []
    for patterns in (arms, than):
        own = [a for a in run.standings if any(fnmatch.fnmatch(a.arm, p) for p in patterns)]
        if not own:
            return no_rows(f"no finished race case of {' or '.join(patterns)}")
        best.append(max(own, key=lambda arm: wanted * _value(arm, figure).value))
    praised, warned = best
    sign = compare(_value(praised, figure), _value(warned, figure))
    return _ordered(
        run,
        [None if sign is None else sign * wanted],
        measured="; ".join(_figure_text(arm, figure) for arm in best),
        supported=f"{praised.arm} is {better} than {warned.arm}",
        refuted=f"{warned.arm} is {better} than {praised.arm}",
        arms=best,
    )


# ---------------------------------------------------------------------------- memory and failures


@rule("both-resident")
def both_resident(run: RunData, *, strategy: str) -> ClaimResult:
    """A strategy holds both models between requests: the steady state above the bare process
    against one model's bytes and against both."""
    cases = _race(run, strategy)
    above = numbers(cases, "idle_bytes") - numbers(cases, "process_baseline_bytes").fillna(0)
    weights = [numbers(cases, f"{role}_weights_bytes") for role in ("llm", "asr")]
    known = above.notna() & weights[0].notna() & weights[1].notna()
    if not known.any():
        return no_rows(f"no finished {strategy} case with both models' bytes")
    steady, llm, asr = (float(values[known].median()) for values in (above, *weights))
    verdict, reason = _residency(steady, larger=max(llm, asr), both=llm + asr)
    return run.result(
        verdict,
        reason,
        measured=f"steady {format_bytes(steady)}; Voxtral {format_bytes(llm)}, Whisper "
        f"{format_bytes(asr)}",
        case_ids=cases["case_id"][known],
    )


def _residency(steady: float, *, larger: float, both: float) -> tuple[Verdict, str]:
    """Bytes beyond both models are the process' own; where they outweigh the smaller model, the
    steady state cannot tell one model from two."""
    if steady <= larger * (1 + RESIDENCY_TOLERANCE) and steady < both:
        return "refuted", "only the larger model's bytes are held"
    if steady - both > both - larger:
        return "inconclusive", "the process' own bytes outweigh the smaller model"
    if steady >= both * (1 - RESIDENCY_TOLERANCE / 5):
        return "supported", "both models stay resident"
    return "inconclusive", "the steady state lies between one model and both"


def _race(run: RunData, strategy: str) -> pd.DataFrame:
    """Finished race cases of the arms that the document means by a strategy."""
    cases = race_cases(run.cases, run.trials)
    return cases[(cases["strategy"] + "/" + cases["variant"]).isin(_compared(strategy))]


def predict_in_use(run: RunData, card: Card, *, strategy: str, sizes: list[str], **_: Any) -> str:
    """The planner's total for both models resident; of swapping it knows no such total."""
    if strategy == "swapping":
        return ""
    llm = catalog.voxtral("mini-3b")
    plans = [
        planner.plan_pair(card, catalog.whisper(size), llm, backend="transformers", dtype="float16")
        for size in sizes
    ]
    totals = ", ".join(f"{plan.asr_model} {plan.total_bytes / GB:.1f} GB" for plan in plans)
    return f"predicted for the {card.title}, transformers float16: {totals}"


@rule("memory-in-use", predict=predict_in_use)
def memory_in_use(
    run: RunData,
    *,
    strategy: str,
    sizes: Annotated[list[str], Field(min_length=1)],
    figure: Literal["peak", "idle"] = "peak",
    stated: Stated,
    tolerance: Share,
) -> ClaimResult:
    """So many bytes of the card are in use under a strategy with one of these Whispers: all of
    them, whoever holds them."""
    cases = _race(run, strategy)
    cases = cases[cases["asr_model"].isin(sizes)]
    if figure == "peak":
        in_use = numbers(cases, "capacity_bytes") - numbers(cases, "margin_bytes")
    else:
        in_use = numbers(cases, "idle_bytes") + numbers(cases, "external_bytes")
    in_use = in_use.dropna()
    if in_use.empty:
        return no_rows(f"no finished {strategy} case with {' or '.join(sizes)} knows them")
    return range_result(run, in_use, stated, tolerance, case_ids=cases.loc[in_use.index, "case_id"])


@rule("oom-risk")
def oom_risk(run: RunData, *, strategy: str, than: str) -> ClaimResult:
    """A strategy runs out of memory in a larger share of its cases than another."""
    race = main_pair(run.cases[run.cases["experiment"] == "strategy_comparison"])
    race = race[race["status"] != "skipped"]
    arms = race["strategy"] + "/" + race["variant"]
    counts = {}
    for name in (strategy, than):
        own = race[arms.isin(_compared(name))]
        if own.empty:
            return no_rows(f"no race case of {name}")
        counts[name] = int((own["status"] == "oom").sum()), len(own)
    own_share, other_share = (bad / n for bad, n in counts.values())
    verdict: Verdict = "inconclusive"
    reason = "as often as the other"
    if own_share == other_share == 0:
        reason = "neither ran out of memory here; notebook 03 finds where each does"
    elif own_share != other_share:
        verdict = supported_if(own_share > other_share)
        how = "more" if own_share > other_share else "less"
        reason = f"{strategy} ran out of memory {how} often"
    return run.result(
        verdict,
        reason,
        measured=", ".join(f"{name} {bad} of {n} cases" for name, (bad, n) in counts.items()),
        case_ids=race[race["status"] == "oom"]["case_id"],
    )


# ------------------------------------------------------------------------------- at the same time


@rule("one-at-a-time", subject="times")
def one_at_a_time(run: RunData, *, strategy: str) -> ClaimResult:
    """The two models are at work together in no request of a strategy's plainest arm."""
    trials = arm_trials(run, plain_arm(strategy))
    spans = model_spans(run)
    start, end = spans["start"].unstack("role"), spans["end"].unstack("role")
    if trials.empty or not {"llm", "asr"} <= set(start.columns):
        return no_rows(f"no {strategy} case with spans of both models")
    keys = ["notebook", "case_id", "request_id"]
    served = start.index.isin(pd.MultiIndex.from_frame(trials[keys]))
    start, end = start[served].dropna(), end[served].dropna()
    together = (end.min(axis=1) - start.max(axis=1)).clip(lower=0)
    share = together / (end - start).min(axis=1)
    if len(share) < LEAST_TRIALS:
        return no_rows(
            f"{len(share)} requests with spans of both models, {LEAST_TRIALS} are needed"
        )
    worst = float(share.max())
    return run.result(
        supported_if(worst <= MOST_OVERLAP_SHARE),
        "the models take turns" if worst <= MOST_OVERLAP_SHARE else "they are at work together",
        measured=f"together for {worst:.1%} of the shorter one's time at most, n = {len(share)}",
        case_ids=trials["case_id"],
    )


@rule("full-speed", subject="times")
def full_speed(run: RunData, *, strategy: str, limit: Limit) -> ClaimResult:
    """A request takes at most `limit` times its slower model's time for the same request in the
    control arm of the same notebook: 1 would be two models that do not slow each other."""
    served, alone = _served_and_alone(run, strategy)
    if served.empty or alone.empty:
        return no_rows(f"no {strategy} case, or no control with spans of both models")
    alone = alone.assign(ideal=alone[["llm", "asr"]].max(axis=1))
    ideal = alone.groupby(["notebook", "request_id"])["ideal"].median().reset_index()
    paired = served.merge(ideal, on=["notebook", "request_id"])
    return _within(
        run,
        {"the slower model's time": bootstrap_interval(paired["latency_s"] / paired["ideal"])},
        limit,
        supported="a request takes no longer than its slower half",
        refuted="both models share one device and slow each other",
        case_ids=paired["case_id"],
    )


@rule("own-speed", subject="times")
def own_speed(run: RunData, *, strategy: str, limit: Limit) -> ClaimResult:
    """Each model is at work at most `limit` times as long as for the same request in the control
    arm of the same notebook, where it works alone."""
    served, alone = _served_and_alone(run, strategy)
    served = with_model_times(run, served)
    if alone.empty or not {"llm", "asr"} <= set(served.columns) or served.empty:
        return no_rows(f"no {strategy} case, or no control, with spans of both models")
    roles = ["llm", "asr"]
    usual = alone.groupby(["notebook", "request_id"])[roles].median().reset_index()
    paired = served.merge(usual, on=["notebook", "request_id"], suffixes=("", "_alone"))
    return _within(
        run,
        {
            f"{role}'s own time": bootstrap_interval(paired[role] / paired[f"{role}_alone"])
            for role in roles
        },
        limit,
        supported="neither model slows the other",
        refuted="both models share one device, whose units and memory serve one at a time",
        case_ids=paired["case_id"],
    )


def _served_and_alone(run: RunData, strategy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Timed requests of a strategy, and those of the control arm with each model's own time, which
    is its time alone since the two take turns there; empty without spans of both."""
    served = timed_trials(_race(run, strategy), run.trials)
    alone = with_model_times(run, arm_trials(run, "/".join(CONTROL)))
    return served, alone if {"llm", "asr"} <= set(alone.columns) else alone.iloc[:0]


def _within(
    run: RunData,
    ratios: dict[str, Interval],
    limit: float,
    *,
    supported: str,
    refuted: str,
    case_ids: Iterable[str],
) -> ClaimResult:
    """Whether all ratios stay within the limit, their intervals with them."""
    n = min(ratio.n for ratio in ratios.values())
    if n < LEAST_TRIALS:
        return no_rows(f"{n} paired requests, {LEAST_TRIALS} are needed")
    verdict: Verdict = "inconclusive"
    reason = f"an interval holds {limit:g}"
    if any(ratio.low > limit for ratio in ratios.values()):
        verdict, reason = "refuted", refuted
    elif all(ratio.high <= limit for ratio in ratios.values()):
        verdict, reason = "supported", supported
    return run.result(
        verdict,
        reason,
        measured=", ".join(f"{show_ratio(ratio)} {what}" for what, ratio in ratios.items())
        + f", n = {n}",
        case_ids=case_ids,
    )
