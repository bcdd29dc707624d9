"""What was learnt: sentences computed from the rows of a run. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import pandas as pd

from hybridlab.analysis import memory_growth, queueing
from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import Interval, bootstrap_interval
from hybridlab.reporting import tables
from hybridlab.reporting.labels import (
    EMPTY,
    arm_of,
    bounds,
    counted,
    output_matches_reference,
    percent,
    role_name,
)
from hybridlab.reporting.rows import (
    CONTROL,
    RACE,
    arm_intervals,
    case_labels,
    cases_of,
    complete_tables,
    is_first,
    measured,
    race_trials,
)
from hybridlab.results.reader import has_clock
from hybridlab.results.schema import AT_ONCE
from hybridlab.simulation import NO_TIMES
from hybridlab.units import MIB, format_bytes, format_seconds


def markdown(sentences: Iterable[str]) -> str:
    """A bullet list for a notebook or the report."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


@complete_tables
def unmeasured(cases: pd.DataFrame) -> list[str]:
    """What gave no measurement, with its reason; cases of one name and status share a sentence."""
    lost = cases.assign(label=case_labels(cases))[cases["status"] != "ok"]
    return [
        f"{label} was not measured ({status}{f', {len(own)} cases' if len(own) > 1 else ''}): "
        f"{own['reason'].iloc[0]}."
        for (label, status), own in lost.groupby(["label", "status"], sort=False)
    ]


@complete_tables
def baseline(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """01: Voxtral's bytes and, where there is a clock, times."""
    sentences = []
    for _, row in measured(cases).iterrows():
        extra = row["request_peak_bytes"] - row["idle_bytes"]
        sentences.append(
            f"Voxtral {row['llm_model']} ({row['llm_weights']} weights, {row['llm_dtype']}) "
            f"keeps {format_bytes(row['llm_weights_bytes'])} of weights and takes up to "
            f"{format_bytes(extra)} more while it works."
        )
        own = trials[(trials["case_id"] == row["case_id"]) & ~is_first(trials)]
        estimate = bootstrap_interval(own["latency_s"])
        if estimate.n:
            sentences.append(
                f"Transcription and one answer together take {format_seconds(estimate.value)} at "
                f"the median (n = {estimate.n})."
            )
        accuracy = tables.answer_accuracy(own)
        if accuracy is not None:
            sentences.append(f"{percent(accuracy)} of the answers were right.")
    return sentences + unmeasured(cases)


@complete_tables
def beside(cases: pd.DataFrame) -> list[str]:
    """02: which sizes were measured beside Voxtral, and what each left over."""
    sentences = [
        f"{label} beside Voxtral {row['llm_model']} "
        + _peaked(row["peak_bytes"], row["margin_bytes"], of=f" of {row['device']}")
        + "."
        for label, row in _measured(cases)
    ]
    return sentences + unmeasured(cases)


def _peaked(peak_bytes: float, margin_bytes: float, of: str = "") -> str:
    """'peaked at 10.03 GiB with 5.57 GiB of cuda:0 to spare'."""
    margin = "" if pd.isna(margin_bytes) else f" with {format_bytes(margin_bytes)}{of} to spare"
    return f"peaked at {format_bytes(peak_bytes)}{margin}"


def _measured(cases: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """The label and the row of each case that ended well."""
    for label, (_, row) in zip(case_labels(cases), cases.iterrows(), strict=True):
        if row["status"] == "ok":
            yield label, row


@complete_tables
def limits(cases: pd.DataFrame) -> list[str]:
    """03, first half: predicted against measured growth of the request."""
    sentences = [
        f"{label}: {format_bytes(row['request_peak_bytes'] - row['idle_bytes'])} above idle, "
        f"predicted {format_bytes(row['predicted_bytes'] - row['idle_bytes'])}."
        for label, row in _measured(cases)
    ]
    return sentences + unmeasured(cases)


@complete_tables
def memory_limits(cases: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    """03, second part: the limits, the least headroom and the fallback; nothing where none was
    searched for."""
    asked = measured(cases)["limit_kind"]
    rows = tables.memory_limits_table(cases, probes).to_dict("records")
    sentences = [
        f"{_LIMIT_WORDS[kind]} {row['found']} ({row['strategy']}, {row['probes']} probes)."
        for kind, row in zip(asked, rows, strict=True)
    ]
    if len(probes):
        lost = int((~probes["succeeded"].astype(bool)).sum())
        sentences.append(f"{lost} of {len(probes)} probes ran out of memory, each on purpose.")
    return sentences + unmeasured(cases)


_LIMIT_WORDS = {
    "audio_s": "The longest audio that was served is",
    "batch": "The largest batch that was served is",
    "beams": "The most beams that were served are",
    "headroom": "A request needs",
    "fallback": "The fallback chain ended on",
}


@complete_tables
def attention(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """03, third part: what each kernel takes beside `auto` on the longest audio, and its words."""
    table = tables.attention_table(cases, trials)
    fine = table[table["status"] == "ok"]
    sentences = [
        f"{row['attention']} attention took {row['request MiB']} MiB above rest for "
        f"{row['audio s']} s of audio{_in_seconds(row['s'])}"
        + {"yes": ", saying what auto says.", "no": ", saying something else than auto."}.get(
            row["same tokens"], "."
        )
        for row in fine.tail(len(fine) // max(1, fine["audio s"].nunique())).to_dict("records")
    ]
    return sentences + unmeasured(cases)


def _in_seconds(words: str) -> str:
    return "" if words == EMPTY else f" in {words} s"


@complete_tables
def quality(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """02, last part: how many words each model alone gets wrong, and what was left out."""
    sentences = [
        f"{row['model']} ({row['weights']} weights): {row['quality']}, {row['WER %']} % of "
        f"{row['words']} words wrong."
        for row in tables.quality_by_size(trials, cases).to_dict("records")
    ]
    return sentences + _without_quality(cases)


def _without_quality(cases: pd.DataFrame) -> list[str]:
    """Models without text share a sentence; of a disturbed case only the times are lost."""
    own = cases_of(cases, "quality")
    own = own.assign(
        name=pd.Series([tables.model_name(row) for _, row in own.iterrows()], own.index, dtype=str)
    )
    sentences = []
    for status, words in (
        ("skipped", "Not held against the references"),
        ("invalid", "Their texts count, their times do not"),
    ):
        for reason, same in own[own["status"] == status].groupby("reason", sort=False):
            sentences.append(f"{words}: {', '.join(same['name'])} ({reason}).")
    return sentences + unmeasured(own[~own["status"].isin(["skipped", "invalid"])])


@complete_tables
def soak(cycles: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """03, last part: what many cycles did to memory in each arm, and when it would run out."""
    own = cases_of(cases, "soak")
    sentences = [_growth(arm, own) for arm in memory_growth.arms(cycles)]
    same = cycles["output_unchanged"].dropna().astype(bool)
    if len(same):
        sentences.append(f"{int(same.sum())} of {len(same)} cycles said what they said first.")
    return sentences + unmeasured(own)


def _growth(arm: memory_growth.Arm, cases: pd.DataFrame) -> str:
    slope = arm.slope(arm.occupied)
    if math.isnan(slope.value):
        return f"{arm.name}: too few cycles for a trend."
    value, low, high = (f"{bound / MIB:+.2f}" for bound in (slope.value, slope.low, slope.high))
    word = "grows" if slope.low > 0 else "shrinks" if slope.high < 0 else "shows no trend"
    return (
        f"{arm.name}: memory {word}, {value} MiB per {memory_growth.PER_CYCLES} cycles ({low} to "
        f"{high}); {tables.forecast_words(arm, cases)}."
    )


@complete_tables
def strategy_comparison(
    cases: pd.DataFrame, trials: pd.DataFrame, probes: pd.DataFrame | None = None
) -> list[str]:
    """04-06: how the arms of this notebook compare, whether they passed the parity gate, and which
    of them had to step down to a smaller Whisper (`probes`)."""
    served = race_trials(trials)
    estimates = arm_intervals(served)
    sentences = []
    for arm, own in served.groupby("arm", sort=False):
        texts = output_matches_reference(own["output_matches_reference"])
        known = _median_words(estimates[str(arm)])
        known += [f"text as alone in {texts} requests"] if texts != EMPTY else []
        sentences += [f"{arm}: {'; '.join(known)}."] if known else []
    control = estimates.get(CONTROL)
    if control is not None and control.n:
        sentences += [
            f"{arm} takes {estimate.value / control.value:.2f} times as long as {CONTROL} in this "
            "run."
            for arm, estimate in estimates.items()
            if arm != CONTROL and estimate.n
        ]
    if not has_clock(cases):
        sentences += _bytes_of_arms(cases)
    return sentences + stepped_down(cases, probes) + unmeasured(cases)


def _median_words(estimate: Interval) -> list[str]:
    """A median with its interval and n; a single value has no interval, none at all no words."""
    if not estimate.n:
        return []
    ends = f"{bounds(estimate)}, " if estimate.n > 1 else ""
    median = f"{format_seconds(estimate.value)} ({ends}n = {estimate.n})"
    return [f"{median} per request at the median"]


def _bytes_of_arms(cases: pd.DataFrame) -> list[str]:
    """What each arm took at most: all that is known of it without a clock."""
    raced = measured(cases_of(cases, RACE))
    return [
        f"{arm_of(own.iloc[0])} "
        + _peaked(numbers(own, "peak_bytes").max(), numbers(own, "margin_bytes").min())
        + f"; {NO_TIMES}."
        for _, own in raced.groupby(["strategy", "variant"], sort=False)
    ]


@complete_tables
def stepped_down(cases: pd.DataFrame, probes: pd.DataFrame | None) -> list[str]:
    """Each step that an arm took down the fallback chain and went on from, once for all rounds."""
    if probes is None:
        return []
    steps = probes[(probes["experiment"] == RACE) & probes["to_size"].notna()]
    steps = steps.drop(columns=["strategy", "variant"], errors="ignore")
    own = steps.merge(measured(cases)[["case_id", "strategy", "variant"]], on="case_id")
    own = own.drop_duplicates(["strategy", "variant", "from_size", "to_size", "at_request"])
    return [
        f"{arm_of(row)}: stepped down from {row['from_size']} to {row['to_size']} "
        f"{_when(row['at_request'])}: {row['message'].rstrip('.')}; no request was lost."
        for row in own.to_dict("records")
    ]


def _when(step: str) -> str:
    return "before the first request" if step == "load" else f"at request {step}"


@complete_tables
def swapping(spans: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """06: what a request's swaps take in each variant, and how near its copy comes to the link."""
    totals = tables.swap_seconds(spans, cases).sum(axis=1).sort_values()
    stages = tables.swap_spans(spans, cases)
    copies = stages[(stages["stage"] == "copy-in") & ~stages["once"].astype(bool)]
    shares = copies["bytes"] / copies["seconds"] / copies["link_bytes_per_s"]
    reached = shares.astype(float).groupby(copies["variant"]).median().dropna().to_dict()
    sentences = []
    for variant, seconds in totals.items():
        text = f"Swapping by {variant} takes {format_seconds(float(seconds))} per request"
        if variant in reached:
            text += f"; its copy in reaches {percent(reached[variant])} of the link's own speed"
        sentences.append(text + ".")
    return sentences


def containers(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """05: what HTTP, a gateway and a second server add to the arms that were asked over HTTP."""
    sentences = []
    for row in tables.containers_table(trials, cases).to_dict("records"):
        gateway = "" if row["gateway ms"] == EMPTY else f" and a gateway {row['gateway ms']} ms"
        added = f"HTTP adds {row['HTTP ms']} ms{gateway}, {row['of latency']} of a request; "
        servers = f"{counted(row['servers'], 'server')} hold{'s' if row['servers'] == 1 else ''}"
        text = f"{row['strategy']}: {'' if row['HTTP ms'] == EMPTY else added}{servers} "
        text += f"{row['beside weights MiB']} MiB beside weights"
        if row["second context MiB"] != EMPTY:
            text += f", {row['second context MiB']} MiB of it more than one does"
        if row["gateway MiB"] != EMPTY:
            text += f", the gateway {row['gateway MiB']} MiB"
        sentences.append(text + ".")
    return sentences


@complete_tables
def at_once(ledgers: pd.DataFrame) -> list[str]:
    """05: whose bytes the peak was while both models worked."""
    sentences = []
    for _, own in ledgers[ledgers["moment"] == AT_ONCE].groupby("case_id", sort=False):
        shares = own[own["owner"].str.endswith(" request")]
        names = shares["owner"].str.removesuffix(" request").map(role_name)
        sizes = shares["bytes"].map(format_bytes)
        words = [f"{name} {size}" for name, size in zip(names, sizes, strict=True)]
        together = format_bytes(shares["bytes"].sum())
        sentences.append(
            f"While both worked, their requests held {together} together at most: "
            f"{' and '.join(words)}."
        )
    return sentences


def arrivals(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """05 and 06: what each arm holds of requests that come at their own times."""
    points = queueing.arrival_points(trials, cases)
    sentences = []
    for arm, rate in queueing.knees(points).items():
        own = points[points["arm"] == arm]
        last = float(own["rate_rps"].max())
        words = (
            f"its p95 stays within {queueing.KNEE_RATIO:g} times that at the lowest rate up to the "
            f"highest that was tried, {last:.3g} requests/s"
            if rate == last
            else f"its knee is at {rate:.3g} requests/s, of {last:.3g} that were tried"
        )
        sentences.append(f"{arm} under requests at their own times: {words}.")
    return sentences
