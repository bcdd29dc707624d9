"""Rules that hold strategies against each other.

They speak of the device and the weights that were measured and of nothing else; every reason
names both. Fewer than five trials, overlapping intervals and missing arms are inconclusive.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from hybridlab import catalog
from hybridlab.analysis.arms import (
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
from hybridlab.analysis.claims.memory_and_time_rules import model_times
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.units import format_bytes, format_number

#: The strategies that the original analysis compares.
COMPARED = ("sequential", "parallel", "swapping")
RESIDENCY_TOLERANCE = 0.1

Figure = Literal["peak_bytes", "latency", "throughput"]
Patterns = Annotated[list[str], Field(min_length=1)]

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


@rule("safest")
def safest(run: RunData, *, strategy: str) -> ClaimResult:
    """A strategy never fails, and none that never fails has a lower peak."""
    ended = _ended(run, ("oom", "crashed", "timeout"))
    failed = {name for name, (bad, _) in ended.items() if bad}
    counts = ", ".join(f"{name} {bad} of {n} failed" for name, (bad, n) in ended.items())
    if strategy in failed and failed < set(ended):
        return ClaimResult(
            verdict="refuted",
            measured=counts,
            reason=f"{strategy} failed where another strategy did not, on {run.place}",
        )
    # a strategy that failed is out of the comparison: its peak, where it lived, is no safety
    safe = [arm for arm in run.standings if arm.strategy not in failed]
    arms = _extremes(safe, "peak_bytes", -1)
    if strategy in failed or strategy not in arms or not set(COMPARED) <= {*ended, strategy}:
        needed = ", ".join(COMPARED)
        return no_rows(f"no finished race cases of {needed} to compare ({counts or 'none'})")
    own = arms.pop(strategy)
    return _against_others(
        run,
        own,
        arms,
        "peak_bytes",
        -1,
        supported=f"{own.arm} never failed and has the lowest peak",
        refuted="never failed either and with a lower peak: ",
        counts=f"{counts}; ",
    )


def _compared(strategy: str) -> list[str]:
    """Arms of a strategy as the original analysis means it: its claims say nothing of batches, an
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
    counts: str = "",
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
        measured=counts + "; ".join(_figure_text(arm, figure) for arm in arms),
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


@rule("residency")
def residency(run: RunData, *, strategy: str) -> ClaimResult:
    """A strategy holds only the larger of the two models: the steady state above the bare process
    against one model's bytes and against both."""
    cases = race_cases(run.cases, run.trials)
    cases = cases[cases["strategy"] == strategy]
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
        return "supported", "only the larger model's bytes are held"
    if steady - both > both - larger:
        return "inconclusive", "the process' own bytes outweigh the smaller model"
    if steady >= both * (1 - RESIDENCY_TOLERANCE / 5):
        return "refuted", "both models stay resident, only their work takes turns"
    return "inconclusive", "the steady state lies between one model and both"


@rule("oom-risk")
def oom_risk(run: RunData, *, strategy: str) -> ClaimResult:
    """A strategy runs out of memory in the largest share of its cases."""
    counts = _ended(run, ("oom",))
    if strategy not in counts or len(counts) < len(COMPARED):
        return no_rows(f"needs race cases of {', '.join(COMPARED)}")
    shares = {name: bad / n for name, (bad, n) in counts.items()}
    own = shares.pop(strategy)
    worst = max(shares.values())
    verdict: Verdict = "inconclusive"
    reason = "no strategy ran out of memory here" if own == worst == 0 else "as often as another"
    if own != worst:
        verdict = supported_if(own > worst)
        reason = f"{strategy} ran out of memory {'more' if own > worst else 'less'} often"
    race = run.cases[run.cases["experiment"] == "strategy_comparison"]
    race = race[race["status"] == "oom"]
    return run.result(
        verdict,
        reason,
        measured=", ".join(f"{name} {bad} of {n} cases" for name, (bad, n) in counts.items()),
        case_ids=race["case_id"],
    )


def _ended(run: RunData, statuses: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By compared strategy: cases of the race that ended in one of these ways, and all that were
    run."""
    race = main_pair(run.cases[run.cases["experiment"] == "strategy_comparison"])
    race = race[race["status"] != "skipped"]
    arms = race["strategy"] + "/" + race["variant"]
    found = {}
    for name in sorted(COMPARED):
        own = race[arms.isin(_compared(name))]
        if len(own):
            found[name] = int(own["status"].isin(statuses).sum()), len(own)
    return found


@rule("full-speed", subject="times")
def full_speed(run: RunData, *, strategy: str, limit: Annotated[float, Field(ge=1)]) -> ClaimResult:
    """A request takes at most `limit` times its slower model's time for the same request in the
    control arm of the same notebook: 1 would be two models that do not slow each other."""
    cases = race_cases(run.cases, run.trials)
    cases = cases[cases["strategy"] == strategy]
    served, alone = timed_trials(cases, run.trials), model_times(run)
    if served.empty or not {"llm", "asr"} <= set(alone.columns):
        return no_rows(f"no {strategy} case, or no control with spans of both models")
    alone = alone.assign(ideal=alone[["llm", "asr"]].max(axis=1))
    ideal = alone.groupby(["notebook", "request_id"])["ideal"].median().reset_index()
    paired = served.merge(ideal, on=["notebook", "request_id"])
    ratio = bootstrap_interval(paired["latency_s"] / paired["ideal"])
    if ratio.n < LEAST_TRIALS:
        return no_rows(f"{ratio.n} paired requests, {LEAST_TRIALS} are needed")
    verdict: Verdict = "inconclusive"
    reason = f"the interval holds {limit:g}"
    if ratio.low > limit:
        verdict, reason = "refuted", "both models share one device and slow each other"
    elif ratio.high <= limit:
        verdict, reason = "supported", "a request takes no longer than its slower half"
    return run.result(
        verdict,
        reason,
        measured=f"{show_ratio(ratio)} the slower model's time, n = {ratio.n}",
        case_ids=cases["case_id"],
    )
