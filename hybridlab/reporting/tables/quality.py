"""Quality beside speed and memory: how many words each tenant gets wrong, alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hybridlab.analysis.standings import numbers
from hybridlab.analysis.stats import RESAMPLES, Interval, bootstrap_interval, word_errors
from hybridlab.reporting.tables.words import gib, interval, number_or_none

#: A text is `good` up to so many times the best one's word error rate, or so much above it.
GOOD_RATIO, GOOD_ABOVE = 2.0, 0.02
#: and `decent` up to this word error rate: one word in five.
DECENT_WER = 0.20
RULE = (
    "best: interval reaches the lowest rate; good: at most twice it or 2 points above; decent: at "
    "most 20 %; poor: above"
)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A tenant alone: share of wrong words, audio seconds per second, bytes it takes (the peak
    includes the weights, but not the process before it loaded them)."""

    tenant: str
    model: str
    weights: str
    clips: int
    words: int
    wer: Interval
    rtfx: Interval
    weights_bytes: float | None
    peak_bytes: float | None
    word: str = ""

    @property
    def name(self) -> str:
        return f"{self.tenant.capitalize()} {self.model}"


def qualities(trials: pd.DataFrame, cases: pd.DataFrame) -> list[Quality]:
    """One for each tenant of experiment `quality` that said something, best first."""
    if trials.empty or cases.empty:
        return []
    own = cases[(cases["experiment"] == "quality") & cases["status"].isin(["ok", "invalid"])]
    found = [
        _quality(case, trials[trials["case_id"] == case["case_id"]]) for _, case in own.iterrows()
    ]
    known = sorted((one for one in found if one is not None), key=lambda one: one.wer.value)
    return [Quality(**{**one.__dict__, "word": _word(one.wer, known[0].wer)}) for one in known]


def _quality(case: pd.Series, trials: pd.DataFrame) -> Quality | None:
    said = trials[trials["transcript"].notna() & trials["reference"].notna()]
    counts = word_errors(list(said["reference"]), list(said["transcript"]))
    if not counts:
        return None
    tenant = str(case["variant"])
    timed = said[~said["first"].astype(bool)]
    if case["status"] != "ok":  # somebody disturbed it: its text counts, its times do not
        timed = timed.iloc[:0]
    rest, peak = number_or_none(case["base_bytes"]), number_or_none(case["request_peak_bytes"])
    return Quality(
        tenant=tenant,
        model=str(case["voxtral" if tenant == "voxtral" else "whisper_size"]),
        weights=str(case[f"{tenant}_weights"]),
        clips=len(counts),
        words=sum(words for _, words in counts),
        wer=_wer(counts),
        rtfx=bootstrap_interval(timed["audio_s"] / numbers(timed, "latency_s")),
        weights_bytes=number_or_none(case[f"{tenant}_bytes"]),
        peak_bytes=None if peak is None or rest is None else peak - rest,
    )


def _wer(counts: list[tuple[int, int]]) -> Interval:
    """Errors over words of all clips; the interval resamples clips. Without a single error it has
    no width: few clips say little of errors that are rarer than one in all their words."""
    errors, words = np.array(counts, dtype=float).T
    draws = np.random.default_rng(0).integers(0, len(words), (RESAMPLES, len(words)))
    rates = errors[draws].sum(axis=1) / words[draws].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(float(errors.sum() / words.sum()), float(low), float(high), len(words))


def _word(wer: Interval, best: Interval) -> str:
    """`RULE`, in a word."""
    if wer.low <= best.value:
        return "best"
    if wer.value <= max(GOOD_RATIO * best.value, best.value + GOOD_ABOVE):
        return "good"
    return "decent" if wer.value <= DECENT_WER else "poor"


def tenant_name(case: pd.Series) -> str:
    """'Whisper pocket-m' or 'Voxtral pocket': the tenant that a case of `quality` is about."""
    if case["variant"] == "voxtral":
        return f"Voxtral {case['voxtral']}"
    return f"Whisper {case['whisper_size']}"


def quality_by_size(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per tenant alone: WER, RTFx, bytes, and the word that `RULE` gives it."""
    return pd.DataFrame(
        [
            {
                "model": one.name,
                "weights": one.weights,
                "clips": one.clips,
                "words": one.words,
                "WER %": interval(_percent(one.wer)),
                "quality": one.word,
                "RTFx": interval(one.rtfx),
                "weights GiB": gib(one.weights_bytes),
                "peak GiB": gib(one.peak_bytes),
            }
            for one in qualities(trials, cases)
        ]
    )


def _percent(rate: Interval) -> Interval:
    return Interval(rate.value * 100, rate.low * 100, rate.high * 100, rate.n)
