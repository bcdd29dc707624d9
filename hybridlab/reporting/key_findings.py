"""What was learnt, in sentences for the end of a notebook: the answer to its question, the findings
of its figures, and what no figure shows. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from hybridlab.analysis import queueing
from hybridlab.analysis.arms import failures
from hybridlab.analysis.case_status import invalid_advice, with_bytes
from hybridlab.analysis.stats import quantile
from hybridlab.analysis.texts import endings, is_cut, is_said
from hybridlab.reporting import findings, labels, tables
from hybridlab.reporting.labels import EMPTY, percent, role_name
from hybridlab.reporting.rows import (
    CONTROL,
    RACE,
    case_labels,
    cases_of,
    complete_tables,
    is_first,
    measured,
    present,
    race_standings,
    race_trials,
)
from hybridlab.results.reader import has_clock
from hybridlab.results.schema import AT_ONCE
from hybridlab.simulation import NO_TIMES
from hybridlab.units import counted, format_bytes, format_seconds

#: Sentences that a reader sees before asking for more.
MOST_SENTENCES = 5


#: Where what was measured cannot answer.
NO_ANSWER = "What was measured here does not answer it."


def markdown(answer: Sequence[str], *groups: Iterable[str]) -> str:
    """What was learnt as a list: the answer to the notebook's question, then the first sentence of
    each group, then the others; those beyond `MOST_SENTENCES` are folded."""
    lists = [list(group) for group in groups]
    heads = [sentences[0] for sentences in lists if sentences]
    others = [sentence for sentences in lists for sentence in sentences[1:]]
    ordered = [*(answer or [NO_ANSWER]), *heads, *others]
    shown, folded = ordered[:MOST_SENTENCES], ordered[MOST_SENTENCES:]
    more = f"<details><summary>{len(folded)} more</summary>\n\n{_bullets(folded)}\n\n</details>"
    return "\n\n".join([_bullets(shown), *([more] if folded else [])])


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


@complete_tables
def cut_short(trials: pd.DataFrame) -> list[str]:
    """How many texts did not end by themselves, in a sentence; nothing where all did."""
    return list(filter(None, [endings(trials)]))


@complete_tables
def unmeasured(cases: pd.DataFrame) -> list[str]:
    """What gave no measurement, with its reason; cases of one name and status share a sentence.
    Then what is invalid, and whose texts are lost because its numbers overflowed."""
    named = cases.assign(
        label=case_labels(cases), word=[labels.status(c) for _, c in cases.iterrows()]
    )
    lost = named.drop(with_bytes(named).index)
    sentences = [
        f"{label} was not measured ({status}{f', {len(own)} cases' if len(own) > 1 else ''}): "
        f"{own['reason'].iloc[0]}."
        for (label, status), own in lost.groupby(["label", "word"], sort=False)
    ]
    sentences += filter(None, [labels.capital(invalid_advice(cases))])
    return sentences + findings.overflow_findings(cases)


@complete_tables
def baseline(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """01: where there is a clock Voxtral's times, and how right its answers were."""
    sentences = []
    for _, row in with_bytes(cases).iterrows():
        own = trials[(trials["case_id"] == row["case_id"]) & ~is_first(trials)]
        median_s, n = quantile(own["latency_s"], 0.5), int(own["latency_s"].notna().sum())
        if n:
            sentences.append(
                f"Transcription and one answer together take {format_seconds(median_s)} at "
                f"the median (n = {counted(n, 'request')} of one case)."
            )
        accuracy = tables.answer_accuracy(own)
        if accuracy is not None:
            answers = int((is_said(own, "answer") & own["expected_answer"].notna()).sum())
            words = counted(answers, "answer")
            sentences.append(f"Right are {percent(accuracy)} of {words}.")
    return sentences + cut_short(trials) + unmeasured(cases)


@complete_tables
def limits(cases: pd.DataFrame) -> list[str]:
    """03, first half: the largest requests that were served."""
    rows = tables.request_sizes(cases)
    finding = [f"{findings.scaling_finding(rows)}."] if len(rows) else []
    return finding + unmeasured(cases)


@complete_tables
def memory_limits(cases: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    """03, second part: how the fallback ended, and how many probes failed; nothing where none was
    searched for."""
    asked = measured(cases)["limit_kind"]
    rows = tables.memory_limits_table(cases, probes).to_dict("records")
    sentences = [
        f"The fallback chain ended on {row['found']} ({row['strategy']}, "
        f"{counted(row['probes'], 'probe')})."
        for kind, row in zip(asked, rows, strict=True)
        if kind == "fallback"
    ]
    if len(probes):
        lost = int((~probes["succeeded"].astype(bool)).sum())
        sentences.append(f"{lost} of {len(probes)} probes ran out of memory, each on purpose.")
    return sentences + unmeasured(cases)


@complete_tables
def attention(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """03, third part: which kernel takes least on the longest audio, and whether the words differ
    from those of `auto`."""
    fine = measured(cases_of(cases, "attention")).sort_values("audio_s")
    sentences = []
    if len(fine):
        ranked = fine[fine["audio_s"] == fine["audio_s"].iloc[-1]].sort_values("request_bytes")
        least, most = ranked.iloc[0], ranked.iloc[-1]
        sentences.append(
            f"On {least['audio_s']:g} s of audio {least['attention']} attention takes least above "
            f"rest, {format_bytes(least['request_bytes'])}, {most['attention']} most, "
            f"{format_bytes(most['request_bytes'])}."
        )
        table = tables.attention_table(cases, trials)
        other = sorted(set(table.loc[table["same tokens"] == "no", "attention"]))
        sentences += [f"Other words than under auto: {', '.join(other)}."] if other else []
    return sentences + unmeasured(cases)


@complete_tables
def quality(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """02, last part: how many words each model alone gets wrong, and what was left out."""
    known = tables.qualities(trials, cases)
    finding = [f"{findings.quality_finding(known)}."] if known else []
    own = cases_of(cases, "quality")
    return [
        *finding,
        *cut_short(trials[trials["case_id"].isin(own["case_id"])]),
        *_all_cut(trials, own),
        *_without_quality(cases),
    ]


def _all_cut(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """Models none of whose transcripts counts."""
    sentences = []
    for _, case in cases.iterrows():
        own = trials[(trials["case_id"] == case["case_id"]) & trials["transcript"].notna()]
        if len(own) and is_cut(own, "transcript").all():
            name, texts = tables.model_name(case), counted(len(own), "transcript")
            sentences.append(f"{name} has no word error rate: {texts}, all cut short.")
    return sentences


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
    """03, last part: whether many cycles changed what is said."""
    sentences = []
    same = present(cycles, "output_unchanged").astype(bool)
    if len(same):
        sentences.append(f"{same.sum()} of {len(same)} cycles said what they said first.")
    return sentences + unmeasured(cases_of(cases, "soak"))


@complete_tables
def strategy_comparison(cases: pd.DataFrame, trials: pd.DataFrame) -> list[str]:
    """04-06: which arm of this notebook is fastest, what the others take, and whether they passed
    the parity gate."""
    served, arms = race_trials(trials), race_standings(cases, trials)
    sentences = [f"{findings.fastest_words(arms)}."] if arms else []
    ratios = [
        f"{arm.arm} {labels.bracketed(arm.relative, '{:.2f}'.format)}"
        for arm in arms
        if arm.arm != CONTROL
    ]
    if CONTROL in [arm.arm for arm in arms] and ratios:
        told = f"as long as {CONTROL} in the same rounds: {', '.join(ratios)}."
        few = any(arm.few for arm in arms)
        sentences.append(f"{'So far, in too few rounds to tell, times' if few else 'Times'} {told}")
    sentences += [f"Barred: {arm}, {why}." for arm, why in failures(cases, trials).items()]
    if not has_clock(cases):
        sentences.append(f"{findings.memory_finding(cases_of(cases, RACE))}; {NO_TIMES}.")
    return sentences + _parity(served) + cut_short(trials) + unmeasured(cases)


def _parity(served: pd.DataFrame) -> list[str]:
    """Whether each arm says what the models say alone."""
    known = served[served["output_matches_reference"].notna()]
    if known.empty:
        return []
    differs = known[~known["output_matches_reference"].astype(bool)]
    if differs.empty:
        return [f"All {len(known)} texts are what the models say alone."]
    arms = ", ".join(f"{arm} ({n})" for arm, n in differs["arm"].value_counts().items())
    return [f"{len(differs)} of {len(known)} texts differ from what the models say alone: {arms}."]


@complete_tables
def swapping(spans: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """06: how near each copy comes to the link."""
    stages = tables.swap_spans(spans, cases)
    copies = stages[(stages["stage"] == "copy-in") & ~stages["once"].astype(bool)]
    shares = (copies["bytes"] / copies["seconds"] / copies["link_bytes_per_s"]).astype(float)
    return [
        f"The copy in of {variant} reaches {percent(share)} of the link's own speed."
        for variant, share in shares.groupby(copies["variant"]).median().dropna().items()
    ]


def containers(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """05: what HTTP and the servers add to the arms that were asked over HTTP."""
    sentences = []
    for row in tables.containers_table(trials, cases).to_dict("records"):
        gateway = "" if row["gateway ms"] == EMPTY else f" and a gateway {row['gateway ms']} ms"
        added = f"HTTP adds {row['HTTP ms']} ms{gateway}, {row['of latency']} of a request; "
        sentences.append(
            f"{row['strategy']}: {'' if row['HTTP ms'] == EMPTY else added}beside weights "
            f"{row['beside weights MiB']} MiB are held."
        )
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


@complete_tables
def arrivals(trials: pd.DataFrame, cases: pd.DataFrame) -> list[str]:
    """05 and 06: what the arms hold of requests that come at their own times."""
    points = queueing.arrival_points(trials, cases)
    return [f"{findings.load_finding(points)}."] if len(points) else []
