"""Quality beside speed and memory: how many words each model gets wrong, alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.analysis.stats import RESAMPLES, Interval, bootstrap_interval, word_errors
from hybridlab.analysis.texts import heard, is_cut
from hybridlab.reporting import labels
from hybridlab.reporting.rows import cases_of, complete_tables, is_first

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
    """A model alone: share of wrong words, audio seconds per second, bytes it takes (the peak
    includes the weights, but not the process before it loaded them; NaN without a reading)."""

    role: str
    model: str
    weights: str
    #: Texts that are held against a reference, and those that were cut short.
    clips: int
    cut: int
    words: int
    wer: Interval
    rtfx: Interval
    weights_bytes: float
    peak_bytes: float
    word: str = ""

    @property
    def name(self) -> str:
        return f"{labels.role_name(self.role)} {self.model}"


@complete_tables
def qualities(trials: pd.DataFrame, cases: pd.DataFrame) -> list[Quality]:
    """One for each model of experiment `quality` with text, best first."""
    own = cases_of(cases, "quality")
    own = own[own["status"].isin(["ok", "invalid"])]
    found = [
        _quality(case, trials[trials["case_id"] == case["case_id"]]) for _, case in own.iterrows()
    ]
    known = sorted((one for one in found if one is not None), key=lambda one: one.wer.value)
    return [replace(one, word=_word(one.wer, known[0].wer)) for one in known]


def _quality(case: pd.Series, trials: pd.DataFrame) -> Quality | None:
    said = heard(trials)
    counts = word_errors(list(said["reference"]), list(said["transcript"]))
    if not counts:
        return None
    role = str(case["variant"])
    timed = said[~is_first(said)]
    if case["status"] != "ok":  # other processes disturbed it: its text counts, its times do not
        timed = timed.iloc[:0]
    return Quality(
        role=role,
        model=str(case["llm_model" if role == "llm" else "asr_model"]),
        weights=str(case[f"{role}_weights"]),
        clips=len(counts),
        cut=int(is_cut(trials, "transcript").sum()),
        words=sum(words for _, words in counts),
        wer=_wer(counts),
        rtfx=bootstrap_interval(timed["audio_s"] / numbers(timed, "latency_s")),
        weights_bytes=labels.number_of(case, f"{role}_weights_bytes"),
        peak_bytes=labels.number_of(case, "request_peak_bytes")
        - labels.number_of(case, "process_baseline_bytes"),
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


def model_name(case: pd.Series) -> str:
    """'Whisper pocket-m' or 'Voxtral pocket': the model that a case of `quality` is about."""
    if case["variant"] == "llm":
        return f"Voxtral {case['llm_model']}"
    return f"Whisper {case['asr_model']}"


def quality_by_size(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per model alone: WER, RTFx, bytes, and the word that `RULE` gives it."""
    return pd.DataFrame(
        [
            {
                "model": one.name,
                "weights": one.weights,
                "clips": one.clips,
                "cut short": one.cut,
                "words": one.words,
                "WER %": labels.interval(_percent(one.wer)),
                "quality": one.word,
                "RTFx": labels.interval(one.rtfx),
                "weights GiB": labels.gib(one.weights_bytes),
                "peak GiB": labels.gib(one.peak_bytes),
            }
            for one in qualities(trials, cases)
        ]
    )


def _percent(rate: Interval) -> Interval:
    return Interval(rate.value * 100, rate.low * 100, rate.high * 100, rate.n)
