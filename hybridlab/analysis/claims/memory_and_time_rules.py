"""Rules about arithmetic, bytes, fits and times of one model or one pair."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from hybridlab import catalog, planner
from hybridlab.analysis.arms import LEAST_ROUNDS, numbers, race_cases, timed_trials
from hybridlab.analysis.claims.evidence import (
    ClaimResult,
    RunData,
    Verdict,
    decided,
    no_rows,
    supported_if,
)
from hybridlab.analysis.claims.rules import rule
from hybridlab.analysis.stats import Estimate, Interval, student
from hybridlab.analysis.texts import whole
from hybridlab.catalog import Card
from hybridlab.units import (
    GB,
    GIB,
    counted,
    format_bytes,
    format_percent,
    format_seconds,
    format_seconds_alike,
)

#: Readings of a figure in an analysis that mixes them.
UNITS = {"GB": GB, "GiB": GIB}
#: Audio of about one window, which the stated times are for.
WINDOW_RANGE_S = (25.0, 30.5)

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sizes = Annotated[list[str], Field(min_length=2)]
#: One figure, or the least and the most.
Stated = Annotated[list[Positive], Field(min_length=1, max_length=2)]

# ----------------------------------------------------------------------------------- arithmetic


@rule("sum")
def stated_sum(
    run: RunData,
    *,
    terms: Annotated[list[float], Field(min_length=2)],
    stated: float,
    unit: str,
    tolerance: float = 0.05,
) -> ClaimResult:
    """The terms add up to what is stated."""
    total = math.fsum(terms)
    right = abs(total - stated) <= tolerance
    return ClaimResult(
        verdict=supported_if(right),
        measured=f"{total:g} {unit}",
        reason="the sum is right; it says nothing of how its terms were measured"
        if right
        else f"the terms make {total:g} {unit}, not {stated:g}: an arithmetic slip",
        basis=f"{' + '.join(f'{term:g}' for term in terms)} = {total:g} {unit}",
    )


@rule("share")
def stated_share(
    run: RunData, *, part: float, whole: Positive, stated_percent: float
) -> ClaimResult:
    """A part of a whole is the stated per cent, rounded to a whole one."""
    percent = 100 * part / whole
    right = round(percent) == round(stated_percent)
    quotient = f"{part:g} of {whole:g} is {percent:.1f} %"
    return ClaimResult(
        verdict=supported_if(right),
        measured=f"{percent:.1f} %",
        reason=quotient if right else f"{quotient}, not {stated_percent:g} %: an arithmetic slip",
        basis=f"100 x {part:g} / {whole:g}",
    )


@rule("card-memory")
def card_memory(run: RunData, *, card: str, stated: Positive, tolerance: Share) -> ClaimResult:
    """A card's memory, as its driver gives it, is the stated figure in GB or in GiB."""
    usable = catalog.card(card).usable_bytes
    held = in_range(usable, usable, [stated], tolerance)
    return ClaimResult(
        verdict=supported_if(bool(held)),
        measured=f"{usable / GB:.2f} GB, which are {usable / GIB:.2f} GiB",
        reason=held_words(held, [stated], tolerance),
        basis=f"what the driver of a {catalog.card(card).title} gives",
    )


def in_range(low: float, high: float, stated: Sequence[float], tolerance: float) -> list[str]:
    """The units in which bytes from `low` to `high` touch the stated figure or range."""
    return [
        unit
        for unit, size in UNITS.items()
        if low <= max(stated) * size * (1 + tolerance)
        and high >= min(stated) * size * (1 - tolerance)
    ]


def range_result(
    run: RunData,
    n_bytes: pd.Series,
    stated: Sequence[float],
    tolerance: float,
    *,
    where: str = "",
    case_ids: Iterable[str],
) -> ClaimResult:
    """Whether what was read, from the least to the most, touches the stated figure or range."""
    low, high = float(n_bytes.min()), float(n_bytes.max())
    held = in_range(low, high, stated, tolerance)
    return run.result(
        supported_if(bool(held)),
        held_words(held, stated, tolerance),
        measured=f"{low / GB:.2f}-{high / GB:.2f} GB{where}",
        case_ids=case_ids,
    )


def held_words(held: Sequence[str], stated: Sequence[float], tolerance: float) -> str:
    """'9.6 holds in GB', '3-4 is off by more than 5 % in GB and in GiB'."""
    figure = "-".join(f"{number:g}" for number in stated)
    if not held:
        return f"{figure} is off by more than {format_percent(tolerance)} in GB and in GiB"
    return f"{figure} holds in {' and '.join(held)}"


@rule("package")
def package(run: RunData, *, named: str, module: str) -> ClaimResult:
    """A module is of the package that is named, as far as this environment's packages tell."""
    owners = _distributions().get(module, [])
    if not owners:
        return no_rows(f"no package here has a module {module}")
    return ClaimResult(
        verdict=supported_if(named in owners),
        measured=", ".join(sorted(set(owners))),
        reason=f"the module {module} is of {' and '.join(sorted(set(owners)))}",
        basis="the packages that are installed here",
    )


@functools.cache  # it reads the metadata of everything that is installed
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@rule("dtype-bytes")
def dtype_bytes(run: RunData, *, whisper: str, tested_dtype: str, used_dtype: str) -> ClaimResult:
    """A test in one dtype says what the weights take in another."""
    model = catalog.whisper(whisper)
    tested = _whisper_bytes(whisper, "transformers", tested_dtype)
    used = _whisper_bytes(whisper, "transformers", used_dtype)
    return ClaimResult(
        verdict=supported_if(tested == used),
        measured=f"{format_bytes(tested)} in {tested_dtype}, {format_bytes(used)} in {used_dtype}",
        reason="both dtypes take the same bytes"
        if tested == used
        else f"the tested weights are {tested / used:g} times those used, and host memory holds "
        "neither the GPU's context nor its allocator's peaks",
        basis=f"{model.parameters:,} parameters x bytes per value",
    )


# ---------------------------------------------------------------------------------------- bytes


def predict_footprint(
    run: RunData, card: Card, *, role: str, model: str, stated: Stated, tolerance: float
) -> str:
    if role == "asr":
        parts = [
            f"{backend} {dtype} {_whisper_bytes(model, backend, dtype) / GB:.2f} GB"
            for backend, dtype in backend_dtypes(card)
        ]
        return "predicted: weights " + ", ".join(parts)
    voxtral, dtype = catalog.voxtral(model), planner.default_voxtral_dtype(card)
    weights = planner.voxtral_weights_bytes(voxtral, dtype=dtype)
    request = planner.voxtral_request_bytes(voxtral, planner.Request(), dtype=dtype, card=card)
    return (
        f"predicted: {weights / GB:.2f} GB of weights and {(weights + request) / GB:.2f} GB at "
        f"work in {dtype} on the {card.title}"
    )


def _whisper_bytes(size: str, backend: str, dtype: str) -> int:
    return planner.whisper_weights_bytes(catalog.whisper(size), backend=backend, dtype=dtype)


def backend_dtypes(card: Card) -> list[tuple[str, str]]:
    """What each backend keeps by default, then float16 and int8 where it can."""
    found = []
    for backend, kind in catalog.BACKENDS.items():
        default = kind.default_dtype
        known = [d for d in ("float16", "int8") if d in kind.dtypes]
        found += [(backend, dtype) for dtype in dict.fromkeys([default, *known])]
    return found


@rule("footprint", predict=predict_footprint)
def footprint(
    run: RunData, *, role: Literal["llm", "asr"], model: str, stated: Stated, tolerance: Share
) -> ClaimResult:
    """A model takes the stated figure, or one in the stated range."""
    ranges = _footprints(run, role, model)
    if not ranges:
        return no_rows(f"no finished case with {model}")
    held = [
        f"{unit} for {label}"
        for label, (low, high, _) in ranges.items()
        for unit in in_range(low, high, stated, tolerance)
    ]
    return run.result(
        supported_if(bool(held)),
        held_words(held, stated, tolerance),
        measured="; ".join(
            f"{label}: {low / GB:.2f}-{high / GB:.2f} GB"
            for label, (low, high, _) in ranges.items()
        ),
        case_ids=itertools.chain.from_iterable(ids for *_, ids in ranges.values()),
    )


def _footprints(
    run: RunData, role: str, model: str
) -> dict[str, tuple[float, float, tuple[str, ...]]]:
    """Least and most bytes, and case ids, by what was measured: Voxtral from idle to its request
    peak, Whisper's weights."""
    cases = run.of("baseline" if role == "llm" else "co_residency")
    cases = cases[cases[f"{role}_model"] == model]
    if role == "llm":
        cases = cases[cases["llm_dtype"].isin(["float16", "bfloat16"])]
        labels, columns = cases["llm_dtype"].astype(str), ("idle_bytes", "request_peak_bytes")
        base = numbers(cases, "process_baseline_bytes").fillna(0)
    else:
        labels, columns = _backend_and_dtype(cases), ("asr_weights_bytes", "asr_weights_bytes")
        base = pd.Series(0.0, cases.index)
    cases = cases.assign(
        low=numbers(cases, columns[0]) - base, high=numbers(cases, columns[1]) - base
    )
    return {
        str(label): (float(rows["low"].min()), float(rows["high"].max()), tuple(rows["case_id"]))
        for label, rows in cases.groupby(labels, sort=True)
        if rows["low"].notna().any() and rows["high"].notna().any()
    }


def _backend_and_dtype(cases: pd.DataFrame) -> pd.Series:
    return cases["asr_backend"].astype(str) + " " + cases["asr_dtype"].astype(str)


def predict_size_order(run: RunData, card: Card, *, sizes: list[str]) -> str:
    values = [float(_whisper_bytes(size, "transformers", "float16")) for size in sizes]
    return f"predicted: {_sizes(sizes, values)} in float16"


def _sizes(names: list[str], n_bytes: list[float]) -> str:
    return ", ".join(f"{n} {format_bytes(b)}" for n, b in zip(names, n_bytes, strict=True))


@rule("size-order", predict=predict_size_order)
def size_order(run: RunData, *, sizes: Sizes) -> ClaimResult:
    """Sizes from the one whose weights take most bytes to the one whose take least, within one
    backend and dtype."""
    cases = run.of("co_residency")
    cases = cases.assign(weights=numbers(cases, "asr_weights_bytes")).dropna(subset=["weights"])
    cases = cases[cases["asr_model"].isin(sizes)]
    falls, shown, used = [], [], []
    for label, rows in cases.groupby(_backend_and_dtype(cases), sort=True):
        medians = rows.groupby("asr_model")["weights"].median()
        if len(medians) == len(sizes):
            ordered = [float(medians[size]) for size in sizes]
            falls.append(all(a > b for a, b in itertools.pairwise(ordered)))
            shown.append(f"{label}: {_sizes(sizes, ordered)}")
            used += list(rows["case_id"])
    if not falls:
        return no_rows(f"{', '.join(sizes)} were not all measured in one backend and dtype")
    return run.result(
        supported_if(all(falls)),
        f"weights {'fall' if all(falls) else 'do not fall'} in this order",
        measured="; ".join(shown),
        case_ids=used,
    )


# ----------------------------------------------------------------------------------------- fits


def predict_fits(run: RunData, card: Card, *, whisper: str, **stated: Any) -> str:
    """For what each backend keeps by default, and for float16 and int8."""
    pair = catalog.whisper(whisper), catalog.voxtral("mini-3b")
    plans = [
        planner.plan_pair(card, *pair, backend=backend, dtype=dtype)
        for backend, dtype in backend_dtypes(card)
    ]
    parts = [
        f"{plan.asr_backend} {plan.asr_dtype} {plan.total_bytes / GB:.1f} of "
        f"{plan.capacity_bytes / GB:.1f} GB ({format_percent(plan.utilization)}), "
        f"{'fits' if plan.fits else 'does not fit'}"
        for plan in plans
    ]
    return f"predicted for the {card.title}: {'; '.join(parts)}"


@rule("fits", predict=predict_fits)
def pair_fits(
    run: RunData,
    *,
    whisper: str,
    stated_total: Positive | None = None,
    tolerance: Share = 0.05,
) -> ClaimResult:
    """A Whisper fits beside Voxtral on the card that the claim needs, by backend and dtype, and
    takes the stated total of it, if one is stated. What the lab did not try since the planner saw
    no room does not fit."""
    cases = _tried(run, whisper)
    if cases.empty:
        return no_rows(f"no case of {whisper} beside Voxtral on this card")
    agree = cases["status"] == "ok"
    what = "it fits"
    if stated_total is not None:
        in_use = numbers(cases, "capacity_bytes") - numbers(cases, "margin_bytes")
        right = [bool(in_range(used, used, [stated_total], tolerance)) for used in in_use]
        agree &= pd.Series(right, index=cases.index)
        what = f"it fits with {stated_total:g}, give or take {format_percent(tolerance)},"
    outcomes: dict[Verdict, str] = {
        "supported": f"{what} in every backend and dtype that was measured",
        "inconclusive": f"{what} in some backends and dtypes",
        "refuted": f"{what} in no backend and dtype that was measured",
    }
    verdict: Verdict = "supported" if agree.all() else "inconclusive" if agree.any() else "refuted"
    return _by_backend(run, cases, verdict, outcomes[verdict])


@rule("oom-somewhere", predict=predict_fits)
def oom_somewhere(run: RunData, *, whisper: str) -> ClaimResult:
    """A Whisper does not fit beside Voxtral in some backend and dtype."""
    cases = _tried(run, whisper)
    if cases.empty:
        return no_rows(f"no case of {whisper} beside Voxtral on this card")
    lacks = cases["status"] != "ok"
    reason = f"it did not fit in {lacks.sum()} of {len(cases)} cases"
    return _by_backend(run, cases, supported_if(bool(lacks.any())), reason)


def _tried(run: RunData, whisper: str) -> pd.DataFrame:
    """Cases of this Whisper beside Voxtral that ran, and those that the planner saw no room for."""
    cases = run.cases[run.cases["experiment"] == "co_residency"]
    cases = cases[cases["asr_model"] == whisper]
    room = numbers(cases, "capacity_bytes")
    if run.card:
        room = room.fillna(catalog.card(run.card).usable_bytes)
    no_room = (cases["status"] == "skipped") & (numbers(cases, "predicted_bytes") > room)
    return cases[cases["status"].isin(["ok", "oom"]) | no_room]


def _by_backend(run: RunData, cases: pd.DataFrame, verdict: Verdict, reason: str) -> ClaimResult:
    capacity, peak = numbers(cases, "capacity_bytes"), numbers(cases, "peak_bytes")
    used = (capacity - numbers(cases, "margin_bytes")).fillna(peak)
    needed = numbers(cases, "predicted_bytes")
    rows = zip(_backend_and_dtype(cases), cases["status"], used, capacity, needed, strict=True)
    return run.result(
        verdict,
        reason,
        measured="; ".join(f"{label}: {_fit(*figures)}" for label, *figures in rows),
        case_ids=cases["case_id"],
    )


def _fit(status: str, used: float, capacity: float, needed: float) -> str:
    if status == "oom":
        return "out of memory"
    if status == "skipped":
        return f"not tried, {needed / GB:.2f} GB predicted"
    if math.isnan(used):
        return "fits"
    share = format_percent(used / capacity)
    return f"fits, {used / GB:.2f} of {capacity / GB:.2f} GB in use ({share})"


@rule("overhead")
def overhead(run: RunData, *, stated: Positive, tolerance: Share) -> ClaimResult:
    """What of a card is in use outside torch's allocator, while the pair is loaded in one
    process."""
    cases = run.of("co_residency")
    outside = numbers(cases, "external_bytes").dropna()
    if outside.empty:
        return no_rows("no case beside Voxtral knows the bytes outside torch")
    return range_result(
        run,
        outside,
        [stated],
        tolerance,
        where=" outside torch, one process",
        case_ids=cases.loc[outside.index, "case_id"],
    )


# ---------------------------------------------------------------------------------------- times


def predict_latency(run: RunData, card: Card, *, who: str, **stated: Any) -> str:
    """Voxtral's lower bound alone: every new token reads all text weights once."""
    if who == "asr":
        return ""
    text = catalog.voxtral("mini-3b").text  # its embedding, read by row, is as large as the head
    per_token_s = 2 * text.parameters / card.memory_bandwidth
    return (
        f"predicted: Voxtral's new tokens take at least {per_token_s * 1e3:.1f} ms each on the "
        f"{card.title} in 16 bit ({format_seconds(512 * per_token_s)} for 512), from its bandwidth"
    )


@rule("latency", subject="times", predict=predict_latency)
def latency(
    run: RunData,
    *,
    who: Literal["llm", "asr", "request"],
    strategy: str,
    stated_s: Positive,
    tolerance: Share,
) -> ClaimResult:
    """The stated time for a clip of one window in a strategy's plainest arm, of a model or of the
    whole request."""
    arm = plain_arm(strategy)
    trials = arm_trials(run, arm)
    times = trials if who == "request" else with_model_times(run, trials)
    times = times[times["audio_s"].between(*WINDOW_RANGE_S)]
    seconds = case_logs(times, numbers(times, "latency_s" if who == "request" else who))
    if seconds.n < LEAST_ROUNDS:
        return no_rows(
            f"{seconds.n} cases of {arm} with clips of 25 to 30 s, {LEAST_ROUNDS} are needed: name "
            "a folder of such clips as `audio`, and as many rounds"
        )
    low, high = (stated_s * (1 + sign * tolerance) for sign in (-1, 1))
    verdict, chance = decided(
        max(seconds.above(math.log(low)), seconds.below(math.log(high))),
        min(seconds.below(math.log(low)), seconds.above(math.log(high))),
    )
    return run.result(
        verdict,
        f"{stated_s:g} s within {format_percent(tolerance)} is {low:.3g}-{high:.3g} s",
        measured=f"{arm}: {show_seconds(seconds.interval().exponential())}",
        case_ids=times["case_id"],
        chance=chance,
    )


def case_logs(rows: pd.DataFrame, values: pd.Series) -> Estimate:
    """The mean over cases of the logarithm of each case's median."""
    keys = [rows["notebook"], rows["case_id"]]
    return student(np.log(values.dropna().groupby(keys).median()))


def plain_arm(strategy: str) -> str:
    return f"{strategy}/{catalog.strategy(strategy).plain.name}"


def arm_trials(run: RunData, arm: str) -> pd.DataFrame:
    """Timed requests of an arm, 'strategy/variant', first requests and texts that were cut short
    left out."""
    cases = race_cases(run.cases, run.trials)
    own = cases[cases["strategy"] + "/" + cases["variant"] == arm]
    rows = timed_trials(own, whole(run.trials))
    return rows.assign(audio_s=numbers(rows, "audio_s"))


def with_model_times(run: RunData, trials: pd.DataFrame) -> pd.DataFrame:
    """Requests with a column per role: its first span's start to its last's end."""
    keys = ["notebook", "case_id", "request_id"]
    both = model_spans(run)
    wide = (both["end"] - both["start"]).unstack("role").reset_index()
    return trials.merge(wide, on=keys)


def model_spans(run: RunData) -> pd.DataFrame:
    """`start` and `end` of each role at work on a request, by notebook, case, request and role."""
    spans = run.rows("spans")
    spans = spans[spans["request_id"].notna()]
    spans = spans.assign(start=numbers(spans, "start_s"), end=numbers(spans, "end_s"))
    by = ["notebook", "case_id", "request_id", "role"]
    return spans.groupby(by).agg(start=("start", "min"), end=("end", "max"))


def show_seconds(values: Interval) -> str:
    """'median 0.41 s [0.39, 0.43], n = 5 cases'."""
    value, low, high = format_seconds_alike([values.value, values.low, values.high])
    return f"median {value} [{low}, {high}], n = {counted(values.n, 'case')}"
