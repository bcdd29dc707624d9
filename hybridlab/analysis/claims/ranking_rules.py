"""Rules that hold strategies against each other.

They speak of the device and the weights that were measured and of nothing else; every reason
names both, and the arms that were left out. One arm of a side has to lie beyond every arm of the
other, so that none is picked before it is compared. Fewer than five rounds, differences that
chance would show too and missing arms are inconclusive.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from hybridlab import catalog, planner
from hybridlab.analysis.arms import (
    CONTROL,
    LEAST_ROUNDS,
    ArmStats,
    Figure,
    main_pair,
    numbers,
    race_cases,
)
from hybridlab.analysis.claims.evidence import (
    ClaimResult,
    RunData,
    Verdict,
    decided,
    no_rows,
    supported_if,
)
from hybridlab.analysis.claims.memory_and_time_rules import (
    Share,
    Stated,
    arm_trials,
    case_logs,
    model_spans,
    plain_arm,
    range_result,
    with_model_times,
)
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.differences import difference, least_difference
from hybridlab.analysis.stats import Estimate, Interval
from hybridlab.catalog import Card
from hybridlab.units import GB, counted, format_bytes, format_number, format_percent

#: The strategies that the document compares.
COMPARED = ("sequential", "parallel", "swapping")
RESIDENCY_TOLERANCE = 0.1
#: Beyond it two models are at work together: spans are read a moment apart.
MOST_OVERLAP_SHARE = 0.01

#: What names one and the same request in the cases of a round.
SAME_REQUEST = ["notebook", "round", "request_id"]
#: Towards the highest, or the lowest.
Direction = Literal[1, -1]
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
    """A strategy is the highest or the lowest of the three in one figure: one of its arms lies
    beyond every arm of the others."""
    wanted: Direction = 1 if end == "highest" else -1
    sides = {name: _judged(run, _compared(name)) for name in COMPARED}
    lack = [name for name, arms in sides.items() if not arms]
    if lack:
        return no_rows(f"no race of {', '.join(lack)} with {LEAST_ROUNDS} good rounds")
    own = sides.pop(strategy)
    others = [arm for arms in sides.values() for arm in arms]
    words = {"latency": ("slower", "faster"), "peak_bytes": ("larger", "smaller")}[figure]
    return _against(run, own, others, figure, wanted, words=words[end == "lowest"])


def _compared(strategy: str) -> list[str]:
    """Arms of a strategy as the document means it: its claims say nothing of batches, an
    orchestrator or weights that wait in host memory."""
    known = catalog.strategy(strategy)
    return [f"{strategy}/{own.name}" for own in known if not (own.streams or own.host_copy)]


def _judged(run: RunData, patterns: Iterable[str]) -> list[ArmStats]:
    """The arms of these names that nothing bars and that have enough rounds."""
    sound = [arm for arm in run.standings if not (arm.failed or arm.few)]
    return [arm for arm in sound if _matches(arm, patterns)]


def _matches(arm: ArmStats, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(arm.arm, pattern) for pattern in patterns)


def _left_out(run: RunData, judged: Iterable[ArmStats], strategies: Iterable[str]) -> str:
    """'; judged without a, b': what raced under these strategies and is not among the judged."""
    known = {arm.arm for arm in judged}
    lost = [
        f"{arm.arm} ({arm.failed or f'{arm.n} cases'})" if arm.failed or arm.few else arm.arm
        for arm in run.standings
        if arm.strategy in strategies and arm.arm not in known
    ]
    return f"; judged without {', '.join(lost)}" if lost else ""


def _against(
    run: RunData,
    own: list[ArmStats],
    others: list[ArmStats],
    figure: Figure,
    wanted: Direction,
    *,
    words: str,
) -> ClaimResult:
    """Whether an arm of `own` lies farther towards the `wanted` end than every one of the others,
    or one of those farther than all of `own`."""
    ahead, behind = _farthest(own, others, figure, wanted), _farthest(others, own, figure, wanted)
    verdict, chance = decided(ahead[0], behind[0])
    reason = "no difference can be told, or it is too small to count"
    if verdict == "supported":
        reason = f"{ahead[1].arm} is {words} than {_names(others)}"
    elif verdict == "refuted":
        reason = f"{behind[1].arm} is {words} than {_names(own)}"
    arms = [*own, *others]
    return run.result(
        verdict,
        reason + _left_out(run, arms, {arm.strategy for arm in arms}),
        measured="; ".join(_figure_text(arm, figure) for arm in arms),
        case_ids=[case_id for arm in arms for case_id in arm.case_ids],
        chance=chance,
    )


def _names(arms: list[ArmStats]) -> str:
    return " and ".join(arm.arm for arm in arms)


def _farthest(
    arms: list[ArmStats], others: list[ArmStats], figure: Figure, wanted: Direction
) -> tuple[float, ArmStats]:
    """The arm that is most clearly beyond all of the others, and the chance that one of them seems
    so without an effect: beyond all is an intersection, one of several is a union (Bonferroni)."""
    chances = [max(_beyond(arm, other, figure, wanted) for other in others) for arm in arms]
    least = min(range(len(arms)), key=chances.__getitem__)
    return min(1.0, len(arms) * chances[least]), arms[least]


def _beyond(arm: ArmStats, other: ArmStats, figure: Figure, wanted: Direction) -> float:
    gap, least = difference(arm, other, figure), least_difference(arm, other, figure)
    return gap.above(least) if wanted == 1 else gap.below(-least)


def _figure_text(arm: ArmStats, figure: Figure) -> str:
    shown = {
        "peak_bytes": format_bytes(arm.peak_bytes),
        "latency": f"{show_ratio(arm.relative)} of its control",
        "throughput": f"{format_number(arm.throughput_rps)} requests/s, "
        f"{show_ratio(arm.rate)} of its control",
    }
    return f"{arm.arm} {shown[figure]}, n = {counted(arm.n, 'case')}"


def show_ratio(values: Interval) -> str:
    """'1.24 x [1.20, 1.29]'."""
    return f"{values.value:.2f} x [{values.low:.2f}, {values.high:.2f}]"


@rule("faster", subject="times")
def faster(
    run: RunData,
    *,
    arms: Patterns,
    than: Patterns,
    figure: Literal["latency", "throughput"] = "latency",
) -> ClaimResult:
    """An arm of those named by 'strategy/variant' patterns beats every one of others."""
    sides: list[list[ArmStats]] = []
    for patterns in (arms, than):
        if not any(_matches(arm, patterns) for arm in run.standings):
            return no_rows(f"no finished race case of {' or '.join(patterns)}")
        if not (own := _judged(run, patterns)):
            return no_rows(
                f"too few rounds to tell: {LEAST_ROUNDS} good ones of {' or '.join(patterns)} are "
                "needed"
            )
        sides.append(own)
    wanted: Direction = -1 if figure == "latency" else 1
    words = "faster" if figure == "latency" else "higher in throughput"
    return _against(run, sides[0], sides[1], figure, wanted, words=words)


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
    (own_bad, own_n), (other_bad, other_n) = counts.values()
    verdict, chance = decided(
        _more_often(own_bad, own_n, other_bad, other_n),
        _more_often(other_bad, other_n, own_bad, own_n),
    )
    reason = "no difference can be told"
    if not own_bad + other_bad:
        reason = "neither ran out of memory here; notebook 03 finds where each does"
    elif verdict != "inconclusive":
        how = "more" if verdict == "supported" else "less"
        reason = f"{strategy} ran out of memory {how} often"
    return run.result(
        verdict,
        reason,
        measured=", ".join(f"{name} {bad} of {n} cases" for name, (bad, n) in counts.items()),
        case_ids=race[race["status"] == "oom"]["case_id"],
        chance=chance,
    )


def _more_often(bad: int, n: int, other_bad: int, other_n: int) -> float:
    """The chance of so many bad ones here, were each as likely there: Fisher's exact test."""
    together = math.comb(n + other_n, bad + other_bad)
    ways = (
        math.comb(n, k) * math.comb(other_n, bad + other_bad - k)
        for k in range(bad, min(n, bad + other_bad) + 1)
    )
    return sum(ways) / together


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
    rounds = share.reset_index()["case_id"].nunique()
    if rounds < LEAST_ROUNDS:
        return no_rows(f"{rounds} cases with spans of both models, {LEAST_ROUNDS} are needed")
    worst = float(share.max())
    return run.result(
        supported_if(worst <= MOST_OVERLAP_SHARE),
        "the models take turns" if worst <= MOST_OVERLAP_SHARE else "they are at work together",
        measured=f"together for {format_percent(worst, 1)} of the shorter one's time at most, "
        f"n = {counted(rounds, 'case')}",
        case_ids=trials["case_id"],
    )


@rule("full-speed", subject="times")
def full_speed(run: RunData, *, strategy: str, limit: Limit) -> ClaimResult:
    """A request of a strategy's plainest arm takes at most `limit` times its slower model's time
    for the same request in the control's case of the same round: 1 would be two models that do not
    slow each other."""
    served, alone = _served_and_alone(run, strategy)
    if served.empty or alone.empty:
        return no_rows(f"no {strategy} case, or no control with spans of both models")
    alone = alone.assign(ideal=alone[["llm", "asr"]].max(axis=1))
    paired = served.merge(alone[[*SAME_REQUEST, "ideal"]], on=SAME_REQUEST)
    return _within(
        run,
        {"the slower model's time": case_logs(paired, paired["latency_s"] / paired["ideal"])},
        limit,
        supported="a request takes no longer than its slower half",
        refuted="both models share one device and slow each other",
        paired=paired,
    )


@rule("own-speed", subject="times")
def own_speed(run: RunData, *, strategy: str, limit: Limit) -> ClaimResult:
    """Each model of a strategy's plainest arm is at work at most `limit` times as long as for the
    same request in the control's case of the same round, where it works alone."""
    served, alone = _served_and_alone(run, strategy)
    served = with_model_times(run, served)
    if alone.empty or not {"llm", "asr"} <= set(served.columns) or served.empty:
        return no_rows(f"no {strategy} case, or no control, with spans of both models")
    roles = ["llm", "asr"]
    paired = served.merge(alone[[*SAME_REQUEST, *roles]], on=SAME_REQUEST, suffixes=("", "_alone"))
    return _within(
        run,
        {
            f"{role}'s own time": case_logs(paired, paired[role] / paired[f"{role}_alone"])
            for role in roles
        },
        limit,
        supported="neither model slows the other",
        refuted="both models share one device, whose units and memory serve one at a time",
        paired=paired,
    )


def _served_and_alone(run: RunData, strategy: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Timed requests of a strategy's plainest arm, and those of the control with each model's own
    time, which is its time alone since the two take turns there; empty without spans of both."""
    alone = with_model_times(run, arm_trials(run, "/".join(CONTROL)))
    both = {"llm", "asr"} <= set(alone.columns)
    return arm_trials(run, plain_arm(strategy)), alone if both else alone.iloc[:0]


def _within(
    run: RunData,
    ratios: dict[str, Estimate],
    limit: float,
    *,
    supported: str,
    refuted: str,
    paired: pd.DataFrame,
) -> ClaimResult:
    """Whether all ratios, of logarithms here, stay within the limit."""
    n = min(ratio.n for ratio in ratios.values())
    if n < LEAST_ROUNDS:
        return no_rows(f"too few rounds to tell: {n} paired ones, {LEAST_ROUNDS} are needed")
    most = math.log(limit)
    verdict, chance = decided(
        max(ratio.below(most) for ratio in ratios.values()),
        len(ratios) * min(ratio.above(most) for ratio in ratios.values()),
    )
    reason = {"supported": supported, "refuted": refuted}.get(verdict, f"no side of {limit:g}")
    arm = "/".join(paired[["strategy", "variant"]].iloc[0])
    shown = {what: ratio.interval().exponential() for what, ratio in ratios.items()}
    return run.result(
        verdict,
        f"{reason} (judged by {arm} alone)",
        measured=", ".join(f"{show_ratio(ratio)} {what}" for what, ratio in shown.items())
        + f", n = {n} rounds",
        case_ids=paired["case_id"],
        chance=chance,
    )
