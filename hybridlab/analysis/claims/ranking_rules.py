"""What each rule means, part two: strategies against each other.

These speak of the device and the weights that were measured and of nothing else; every reason
names both. Fewer than five trials, overlapping intervals and missing arms are inconclusive.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence

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
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, Verdict, no_rows
from hybridlab.analysis.claims.memory_and_time_rules import tenant_times
from hybridlab.analysis.claims.rules import (
    ExtremeRule,
    FasterRule,
    LowestRiskRule,
    NoSlowdownRule,
    OomRateRule,
    ResidencyRule,
)
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.units import format_bytes, format_number

#: The strategies that the original analysis compares, as it means them: its claims say nothing of
#: batches, an orchestrator or weights that wait in an arena.
COMPARED = {
    "sequential": ("sequential/plain", "sequential/empty-cache", "sequential/expandable-segments"),
    "parallel": ("parallel/*",),
    "swapping": ("swapping/reload*",),
}
RESIDENCY_TOLERANCE = 0.1

# -------------------------------------------------------------------------------------- extremes


def check_extreme(rule: ExtremeRule, bench: RunData) -> ClaimResult:
    """The strategy's own extreme variant against the extreme variant of each of the others."""
    chosen = _extremes(rule, bench.standings)
    lack = [name for name in COMPARED if name not in chosen]
    if lack:
        return no_rows(f"no finished race case of {', '.join(lack)}")
    own = chosen.pop(rule.strategy)
    wanted = 1 if rule.end == "highest" else -1
    signs = {name: _compare_figure(rule, own, other) for name, other in chosen.items()}
    arms = [own, *chosen.values()]
    return _ordered(
        [None if sign is None else sign * wanted for sign in signs.values()],
        measured="; ".join(_figure_text(rule, arm) for arm in arms),
        said=f"{own.name} is {rule.end}",
        against=f"beyond {own.name}: {_beyond(signs, -wanted)}",
        bench=bench,
        arms=arms,
    )


def _beyond(signs: Mapping[str, int | None], sign: int) -> str:
    return " and ".join(name for name, found in signs.items() if found == sign)


def _extremes(rule: ExtremeRule, arms: Sequence[ArmStats]) -> dict[str, ArmStats]:
    """Each strategy's variant that lies farthest towards the end that the claim speaks of."""
    sign = 1 if rule.end == "highest" else -1
    known = [arm for arm in arms if not math.isnan(_figure(rule, arm).value)]
    return {
        name: max(own, key=lambda arm: sign * _figure(rule, arm).value)
        for name in COMPARED
        if (own := [arm for arm in known if _matches(arm.arm, COMPARED[name])])
    }


def _matches(arm: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(arm, pattern) for pattern in patterns)


def _figure(rule: ExtremeRule, arm: ArmStats) -> Interval:
    return arm.relative if rule.figure == "latency" else arm.peak


def _compare_figure(rule: ExtremeRule, left: ArmStats, right: ArmStats) -> int | None:
    if rule.figure == "latency":
        return compare(left.relative, right.relative)
    least = least_difference_bytes(left.peak, right.peak)
    return compare(left.peak, right.peak, least=least)


def _figure_text(rule: ExtremeRule, arm: ArmStats) -> str:
    if rule.figure == "latency":
        return f"{arm.name} {show_ratio(arm.relative)} of its control, n = {arm.n}"
    return f"{arm.name} {format_bytes(arm.peak_bytes)}, n = {arm.n}"


def show_ratio(values: Interval) -> str:
    """'1.24 x [1.20, 1.29]'."""
    return f"{values.value:.2f} x [{values.low:.2f}, {values.high:.2f}]"


def _ordered(
    signs: Sequence[int | None],
    *,
    measured: str,
    said: str,
    against: str,
    bench: RunData,
    arms: Iterable[ArmStats],
) -> ClaimResult:
    """One order claim from comparisons that are 1 for it, -1 against it, 0 for no difference."""
    verdict: Verdict = "inconclusive"
    if -1 in signs:
        verdict, reason = "refuted", against
    elif None in signs:
        reason = f"a figure is missing or stands on fewer than {LEAST_TRIALS} trials"
    elif 0 in signs:
        reason = "intervals overlap, or the difference is too small to count"
    else:
        verdict, reason = "supported", said
    return ClaimResult(
        verdict=verdict,
        measured=measured,
        reason=f"{reason}, on {bench.place}",
        evidence=_case_ids(arms),
    )


def _case_ids(arms: Iterable[ArmStats]) -> str:
    return ", ".join(dict.fromkeys(case_id for arm in arms for case_id in arm.case_ids))


def check_faster(rule: FasterRule, bench: RunData) -> ClaimResult:
    """The best arm that the claim praises against the best arm that it warns of."""
    sides = [_best(rule, names, bench.standings) for names in (rule.arms, rule.than)]
    lack = [
        " or ".join(names)
        for side, names in zip(sides, (rule.arms, rule.than), strict=True)
        if side is None
    ]
    praised, warned = sides
    if praised is None or warned is None:
        return no_rows(f"no finished race case of {' and of '.join(lack)}")
    if rule.figure == "latency":
        sign = compare(warned.relative, praised.relative)
        texts = [
            f"{arm.name} {show_ratio(arm.relative)} of its control" for arm in (praised, warned)
        ]
    else:
        sign = compare(praised.rate, warned.rate)
        texts = [
            f"{arm.name} {format_number(arm.throughput_rps)} requests/s"
            for arm in (praised, warned)
        ]
    better = "faster" if rule.figure == "latency" else "higher in throughput"
    return _ordered(
        [sign],
        measured="; ".join(
            f"{text}, n = {arm.n}" for text, arm in zip(texts, sides, strict=True) if arm
        ),
        said=f"{praised.name} is {better} than {warned.name}",
        against=f"{warned.name} is {better} than {praised.name}",
        bench=bench,
        arms=[praised, warned],
    )


def _best(rule: FasterRule, patterns: Sequence[str], arms: Sequence[ArmStats]) -> ArmStats | None:
    own = [arm for arm in arms if _matches(arm.arm, patterns)]
    if rule.figure == "latency":
        return min(own, key=lambda arm: arm.relative.value, default=None)
    return max(own, key=lambda arm: arm.rate.value, default=None)


# ---------------------------------------------------------------------------- memory and failures


def check_residency(rule: ResidencyRule, bench: RunData) -> ClaimResult:
    """The steady state above the bare process against one model's bytes and against both."""
    cases = race_cases(bench.cases, bench.trials)
    cases = cases[cases["strategy"] == rule.strategy]
    held = numbers(cases, "idle_bytes") - numbers(cases, "process_baseline_bytes").fillna(0)
    tenants = [numbers(cases, f"{name}_weights_bytes") for name in ("llm", "asr")]
    known = held.notna() & tenants[0].notna() & tenants[1].notna()
    if not known.any():
        return no_rows(f"no finished {rule.strategy} case with both tenants' bytes")
    steady = float(held[known].median())
    voxtral, whisper = (float(tenant[known].median()) for tenant in tenants)
    verdict, reason = _residency(steady, larger=max(voxtral, whisper), both=voxtral + whisper)
    return ClaimResult(
        verdict=verdict,
        measured=f"steady {format_bytes(steady)}; Voxtral {format_bytes(voxtral)}, Whisper "
        f"{format_bytes(whisper)}",
        reason=f"{reason}, on {bench.place}",
        evidence=", ".join(cases["case_id"][known]),
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


def check_safest(rule: LowestRiskRule, bench: RunData) -> ClaimResult:
    """No failure of its own, and no other strategy without failures has a lower peak."""
    failures = _ended(bench, ("oom", "crashed", "timeout"))
    own = failures.get(rule.strategy, (0, 0))
    others = {name: ended for name, ended in failures.items() if name != rule.strategy}
    told = ", ".join(f"{name} {bad} of {n} failed" for name, (bad, n) in failures.items())
    if own[0] and any(bad == 0 for bad, _ in others.values()):
        return ClaimResult(
            verdict="refuted",
            measured=told,
            reason=f"{rule.strategy} failed where another strategy did not, on {bench.place}",
        )
    lowest = ExtremeRule(test="extreme", strategy=rule.strategy, figure="peak_bytes", end="lowest")
    # a strategy that failed is out of the comparison: its peak, where it lived, is no safety
    safe = [arm for arm in bench.standings if failures.get(arm.strategy, (0, 0))[0] == 0]
    chosen = _extremes(lowest, safe)
    if own[0] or rule.strategy not in chosen or len(others) < len(COMPARED) - 1:
        return no_rows(
            f"no finished race cases of {', '.join(COMPARED)} to compare ({told or 'none'})"
        )
    mine = chosen.pop(rule.strategy)
    arms = [mine, *chosen.values()]
    signs = {name: _compare_figure(lowest, mine, other) for name, other in chosen.items()}
    return _ordered(
        [None if sign is None else -sign for sign in signs.values()],
        measured="; ".join([told, *(_figure_text(lowest, arm) for arm in arms)]),
        said=f"{mine.name} never failed and has the lowest peak",
        against=f"never failed either and with a lower peak: {_beyond(signs, 1)}",
        bench=bench,
        arms=arms,
    )


def _ended(bench: RunData, statuses: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By compared strategy: cases of the race that ended in one of these ways, and all that were
    run. One that had to step down to a smaller Whisper ran out of memory, too."""
    race = main_pair(bench.cases[bench.cases["experiment"] == "strategy_comparison"])
    race = race[race["status"] != "skipped"]
    race = race.assign(status=race["status"].mask(numbers(race, "fallbacks") > 0, "oom"))
    arms = race["strategy"] + "/" + race["variant"]
    found = {}
    for name, patterns in sorted(COMPARED.items()):
        own = race[[_matches(arm, patterns) for arm in arms]]
        if len(own):
            found[name] = int(own["status"].isin(statuses).sum()), len(own)
    return found


def check_oom_risk(rule: OomRateRule, bench: RunData) -> ClaimResult:
    """Shares of cases that ran out of memory."""
    counts = _ended(bench, ("oom",))
    if rule.strategy not in counts or len(counts) < len(COMPARED):
        return no_rows(f"needs race cases of {', '.join(COMPARED)}")
    shares = {name: bad / n for name, (bad, n) in counts.items()}
    own = shares.pop(rule.strategy)
    worst = max(shares.values())
    verdict: Verdict = "inconclusive"
    reason = "no strategy ran out of memory here" if own == worst == 0 else "as often as another"
    if own != worst:
        verdict = "supported" if own > worst else "refuted"
        reason = f"{rule.strategy} ran out of memory {'more' if own > worst else 'less'} often"
    race = bench.cases[bench.cases["experiment"] == "strategy_comparison"]
    race = race[(race["status"] == "oom") | (numbers(race, "fallbacks") > 0)]
    return ClaimResult(
        verdict=verdict,
        measured=", ".join(f"{name} {bad} of {n} cases" for name, (bad, n) in counts.items()),
        reason=f"{reason}, on {bench.place}",
        evidence=", ".join(race["case_id"]),
    )


def check_full_speed(rule: NoSlowdownRule, bench: RunData) -> ClaimResult:
    """Requests of the strategy over the slower tenant's time for the same request in the control
    arm of the same notebook: 1 would be two models that do not slow each other."""
    cases = race_cases(bench.cases, bench.trials)
    cases = cases[cases["strategy"] == rule.strategy]
    served = timed_trials(cases, bench.trials)
    alone = tenant_times(bench)
    if served.empty or not {"llm", "asr"} <= set(alone.columns):
        return no_rows(f"no {rule.strategy} case, or no control with spans of both tenants")
    alone = alone.assign(slower=alone[["llm", "asr"]].max(axis=1))
    ideal = alone.groupby(["notebook", "request_id"])["slower"].median().rename("ideal")
    paired = served.merge(ideal.reset_index(), on=["notebook", "request_id"])
    ratio = bootstrap_interval(paired["latency_s"] / paired["ideal"])
    if ratio.n < LEAST_TRIALS:
        return no_rows(f"{ratio.n} paired requests, {LEAST_TRIALS} are needed")
    verdict: Verdict = "inconclusive"
    if ratio.low > rule.limit:
        verdict, reason = "refuted", "both models share one device and slow each other"
    elif ratio.high <= rule.limit:
        verdict, reason = "supported", "a request takes no longer than its slower half"
    else:
        reason = f"the interval holds {rule.limit:g}"
    return ClaimResult(
        verdict=verdict,
        measured=f"{show_ratio(ratio)} the slower tenant's time, n = {ratio.n}",
        reason=f"{reason}, on {bench.place}",
        evidence=", ".join(cases["case_id"]),
    )
