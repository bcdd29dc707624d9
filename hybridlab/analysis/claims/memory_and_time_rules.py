"""What each rule means, part one: arithmetic, bytes, fits and times.

A judge gets a claim's rule and a bench that holds only rows the claim may be judged by; it returns
a finding with the figures that decided. A foreseer gives the planner's word where nothing can be
measured; its text always says 'predicted'.
"""

from __future__ import annotations

import itertools
import math

import pandas as pd

from hybridlab import catalog
from hybridlab import planner as default_planner
from hybridlab.analysis.arms import CONTROL, LEAST_TRIALS, numbers, race_cases, timed_trials
from hybridlab.analysis.claims.evidence import ClaimResult, RunData, Verdict, no_rows
from hybridlab.analysis.claims.rules import (
    DtypeBytesRule,
    FitsRule,
    FootprintRule,
    LatencyRule,
    ShareRule,
    SizeOrderRule,
    SumRule,
)
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.catalog import Card
from hybridlab.units import GB, GIB, format_bytes, format_seconds

#: Readings of a figure in an analysis that mixes them.
UNITS = {"GB": GB, "GiB": GIB}
#: Audio of about one window, which the stated times are for.
WINDOW_RANGE_S = (25.0, 30.5)

# ----------------------------------------------------------------------------------- arithmetic


def check_sum(rule: SumRule, bench: RunData) -> ClaimResult:
    """Adds the stated terms."""
    total = math.fsum(rule.terms)
    formula = f"{' + '.join(f'{term:g}' for term in rule.terms)} = {total:g} {rule.unit}"
    right = abs(total - rule.stated) <= rule.tolerance
    reason = (
        "the sum is right; it says nothing of how its terms were measured"
        if right
        else f"the terms make {total:g} {rule.unit}, not {rule.stated:g}: an arithmetic slip"
    )
    return ClaimResult(
        verdict="supported" if right else "refuted",
        measured=f"{total:g} {rule.unit}",
        reason=reason,
        evidence=formula,
    )


def check_share(rule: ShareRule, bench: RunData) -> ClaimResult:
    """Divides the stated part by the stated whole."""
    percent = 100 * rule.part / rule.whole
    right = round(percent) == round(rule.stated_percent)
    said = f"{rule.part:g} of {rule.whole:g} is {percent:.1f} %"
    return ClaimResult(
        verdict="supported" if right else "refuted",
        measured=f"{percent:.1f} %",
        reason=said if right else f"{said}, not {rule.stated_percent:g} %: an arithmetic slip",
        evidence=f"100 x {rule.part:g} / {rule.whole:g}",
    )


def check_dtype_bytes(rule: DtypeBytesRule, bench: RunData) -> ClaimResult:
    """Compares a model's weights in the tested and in the used dtype."""
    model = catalog.voxtral(rule.voxtral)
    tested, used = (
        default_planner.voxtral_weights_bytes(model, dtype=dtype)
        for dtype in (rule.tested_dtype, rule.used_dtype)
    )
    same = tested == used
    return ClaimResult(
        verdict="supported" if same else "refuted",
        measured=f"{format_bytes(tested)} in {rule.tested_dtype}, {format_bytes(used)} in "
        f"{rule.used_dtype}",
        reason="both dtypes take the same bytes"
        if same
        else f"the tested weights are {tested / used:g} times those used, and host memory holds "
        "neither the GPU's context nor its allocator's peaks",
        evidence=f"{model.parameters:,} parameters x bytes per value",
    )


# ---------------------------------------------------------------------------------------- bytes


def check_footprint(rule: FootprintRule, bench: RunData) -> ClaimResult:
    """Holds the stated figure against the bytes of one tenant, in GB and in GiB."""
    ranges = _footprints(rule, bench)
    if not ranges:
        return no_rows(f"no finished case with {rule.model}")
    held = [
        f"{label} as {unit}"
        for label, (low, high, _) in ranges.items()
        for unit, size in UNITS.items()
        if _touches(rule.stated * size, rule.tolerance, low, high)
    ]
    shown = "; ".join(
        f"{label}: {low / GB:.2f}-{high / GB:.2f} GB" for label, (low, high, _) in ranges.items()
    )
    return ClaimResult(
        verdict="supported" if held else "refuted",
        measured=shown,
        reason=f"{rule.stated:g} holds for {', '.join(held)}, on {bench.place}"
        if held
        else f"{rule.stated:g} is off by more than {rule.tolerance:.0%} in GB and in GiB, on "
        f"{bench.place}",
        evidence=", ".join(case_id for *_, ids in ranges.values() for case_id in ids),
    )


def _footprints(
    rule: FootprintRule, bench: RunData
) -> dict[str, tuple[float, float, tuple[str, ...]]]:
    """Least and most bytes by what was measured: Voxtral from rest to work, Whisper's weights."""
    if rule.tenant == "llm":
        cases = bench.of("baseline")
        cases = cases[cases["llm_model"] == rule.model]
        cases = cases[cases["llm_dtype"].isin(["float16", "bfloat16"])]
        labels = cases["llm_dtype"].astype(str)
        columns = ("idle_bytes", "request_peak_bytes")
    else:
        cases = bench.of("co_residency")
        cases = cases[cases["asr_model"] == rule.model]
        labels = cases["asr_backend"].astype(str) + " " + cases["asr_dtype"].astype(str)
        columns = ("asr_weights_bytes", "asr_weights_bytes")
    found = {}
    for label, rows in cases.groupby(labels, sort=True):
        base = numbers(rows, "process_baseline_bytes").fillna(0) if rule.tenant == "llm" else 0
        low, high = ((numbers(rows, column) - base) for column in columns)
        if low.notna().any() and high.notna().any():
            found[str(label)] = (float(low.min()), float(high.max()), tuple(rows["case_id"]))
    return found


def _touches(stated: float, tolerance: float, low: float, high: float) -> bool:
    return low <= stated * (1 + tolerance) and high >= stated * (1 - tolerance)


def predict_footprint(rule: FootprintRule, bench: RunData, card: Card) -> str:
    if rule.tenant == "asr":
        parts = [
            f"{backend} {dtype} {size / GB:.2f} GB"
            for backend, dtype in backend_dtypes(card)
            for size in (_whisper_bytes(rule.model, backend, dtype),)
        ]
        return "predicted: weights " + ", ".join(parts)
    model = catalog.voxtral(rule.model)
    dtype = default_planner.default_voxtral_dtype(card)
    weights = default_planner.voxtral_weights_bytes(model, dtype=dtype)
    request = default_planner.voxtral_request_bytes(
        model, default_planner.Request(), dtype=dtype, card=card
    )
    return (
        f"predicted: {weights / GB:.2f} GB of weights and {(weights + request) / GB:.2f} GB at "
        f"work in {dtype} on the {card.title}"
    )


def _whisper_bytes(size: str, backend: str, dtype: str) -> int:
    return default_planner.whisper_weights_bytes(
        catalog.whisper(size), backend=backend, dtype=dtype
    )


def backend_dtypes(card: Card) -> list[tuple[str, str]]:
    """What each backend keeps by default, then float16 and int8 where it can."""
    found = []
    for backend, kind in catalog.BACKENDS.items():
        default = kind.default_dtype
        known = [d for d in ("float16", "int8") if d in kind.dtypes]
        found += [(backend, dtype) for dtype in dict.fromkeys([default, *known])]
    return found


def check_size_order(rule: SizeOrderRule, bench: RunData) -> ClaimResult:
    """Weights of the sizes within one backend and dtype, from most to least."""
    cases = bench.of("co_residency")
    cases = cases.assign(weights=numbers(cases, "asr_weights_bytes")).dropna(subset=["weights"])
    verdicts, shown, used = [], [], []
    for labels, rows in cases.groupby(["asr_backend", "asr_dtype"], sort=True):
        sizes = rows.groupby("asr_model")["weights"].median()
        if all(size in sizes.index for size in rule.sizes):
            ordered = [float(sizes[size]) for size in rule.sizes]
            verdicts.append(all(a > b for a, b in itertools.pairwise(ordered)))
            shown.append(f"{' '.join(map(str, labels))}: {_sizes(rule.sizes, ordered)}")
            used += list(rows[rows["asr_model"].isin(rule.sizes)]["case_id"])
    if not verdicts:
        return no_rows(f"{', '.join(rule.sizes)} were not all measured in one backend and dtype")
    good = all(verdicts)
    return ClaimResult(
        verdict="supported" if good else "refuted",
        measured="; ".join(shown),
        reason=f"weights {'fall' if good else 'do not fall'} in this order on {bench.place}",
        evidence=", ".join(used),
    )


def _sizes(names: list[str], n_bytes: list[float]) -> str:
    return ", ".join(f"{n} {format_bytes(b)}" for n, b in zip(names, n_bytes, strict=True))


def predict_size_order(rule: SizeOrderRule, bench: RunData, card: Card) -> str:
    values = [float(_whisper_bytes(size, "transformers", "float16")) for size in rule.sizes]
    return f"predicted: {_sizes(rule.sizes, values)} in float16"


# ----------------------------------------------------------------------------------------- fits


def check_fits(rule: FitsRule, bench: RunData) -> ClaimResult:
    """Whether the pair ran on the card, by backend and dtype; a case that the lab skipped because
    the planner saw no room was not measured."""
    cases = bench.cases[(bench.cases["experiment"] == "co_residency")]
    cases = cases[(cases["asr_model"] == rule.whisper) & cases["status"].isin(["ok", "oom"])]
    if cases.empty:
        return no_rows(f"no case of {rule.whisper} beside Voxtral ran on this card")
    ran = (cases["status"] == "ok").to_list()
    labels = cases["asr_backend"].astype(str) + " " + cases["asr_dtype"].astype(str)
    shown = "; ".join(
        f"{label}: {_fit(row)}" for label, (_, row) in zip(labels, cases.iterrows(), strict=True)
    )
    agree = [fit == rule.fits for fit in ran]
    verdict: Verdict = "supported" if all(agree) else "inconclusive" if any(agree) else "refuted"
    reason = {
        "supported": "it held in every backend and dtype that was measured",
        "inconclusive": "it depends on the backend and the dtype",
        "refuted": "it held in no backend and dtype that was measured",
    }[verdict]
    return ClaimResult(
        verdict=verdict,
        measured=shown,
        reason=f"{reason}, on {bench.place}",
        evidence=", ".join(cases["case_id"]),
    )


def _fit(row: pd.Series) -> str:
    if row["status"] != "ok":
        return "out of memory"
    peak = float(row.get("peak_bytes", math.nan))
    capacity = float(row.get("capacity_bytes", math.nan))
    return f"fits, peak {peak / GB:.2f} of {capacity / GB:.2f} GB ({peak / capacity:.0%})"


def predict_fits(rule: FitsRule, bench: RunData, card: Card) -> str:
    """The planner's word for what each backend keeps by default, and for float16."""
    whisper, voxtral = catalog.whisper(rule.whisper), catalog.voxtral("mini-3b")
    plans = [
        bench.planner.plan_pair(card, whisper, voxtral, backend=backend, dtype=dtype)
        for backend, dtype in backend_dtypes(card)
    ]
    parts = [
        f"{plan.asr_backend} {plan.asr_dtype} {plan.total_bytes / GB:.1f} of "
        f"{plan.capacity_bytes / GB:.1f} GB ({plan.utilization:.0%}), "
        f"{'fits' if plan.fits else 'does not fit'}"
        for plan in plans
    ]
    return f"predicted for the {card.title}: {'; '.join(parts)}"


# ---------------------------------------------------------------------------------------- times


def check_latency(rule: LatencyRule, bench: RunData) -> ClaimResult:
    """Times of the control arm on clips of about one window."""
    times = tenant_times(bench) if rule.who != "request" else control_trials(bench)
    column = "latency_s" if rule.who == "request" else rule.who
    times = times[times["audio_s"].between(*WINDOW_RANGE_S)]
    values = bootstrap_interval(times.get(column, []))
    if values.n < LEAST_TRIALS:
        return no_rows(f"{values.n} requests with about 30 s of audio, {LEAST_TRIALS} are needed")
    low, high = (rule.stated_s * (1 + sign * rule.tolerance) for sign in (-1, 1))
    inside = low <= values.low and values.high <= high
    outside = values.high < low or values.low > high
    return ClaimResult(
        verdict="supported" if inside else "refuted" if outside else "inconclusive",
        measured=show_seconds(values),
        reason=f"{rule.stated_s:g} s within {rule.tolerance:.0%} is {low:.3g}-{high:.3g} s, on "
        f"{bench.place}",
        evidence=", ".join(dict.fromkeys(times["case_id"])),
    )


def control_trials(bench: RunData) -> pd.DataFrame:
    """Timed requests of the control arm, first requests left out."""
    cases = race_cases(bench.cases, bench.trials)
    cases = cases[(cases["strategy"] == CONTROL[0]) & (cases["variant"] == CONTROL[1])]
    rows = timed_trials(cases, bench.trials)
    return rows.assign(audio_s=numbers(rows, "audio_s"))


def tenant_times(bench: RunData) -> pd.DataFrame:
    """The control arm's requests with a column per tenant: its first span's start to its last's
    end, which is its time alone since the two take turns there."""
    keys = ["notebook", "case_id", "request_id"]
    spans = bench.rows("spans")
    spans = spans[spans["request_id"].notna()]
    spans = spans.assign(start=numbers(spans, "start_s"), end=numbers(spans, "end_s"))
    both = spans.groupby([*keys, "role"]).agg(start=("start", "min"), end=("end", "max"))
    wide = (both["end"] - both["start"]).unstack("role").reset_index()
    return control_trials(bench).merge(wide, on=keys)


def predict_latency(rule: LatencyRule, bench: RunData, card: Card) -> str:
    """Only Voxtral's floor can be foretold: every new token reads all text weights once."""
    if rule.who == "asr":
        return ""
    text = catalog.voxtral("mini-3b").text  # its embedding, read by row, is as large as the head
    per_token_s = 2 * text.parameters / card.memory_bandwidth
    return (
        f"predicted: Voxtral's new tokens take at least {per_token_s * 1e3:.1f} ms each on the "
        f"{card.title} in 16 bit ({format_seconds(512 * per_token_s)} for 512), from its bandwidth"
    )


def show_seconds(values: Interval) -> str:
    """'median 0.41 s [0.39, 0.43], n = 16'."""
    low, high = format_seconds(values.low), format_seconds(values.high)
    return f"median {format_seconds(values.value)} [{low}, {high}], n = {values.n}"
