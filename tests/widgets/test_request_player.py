"""What was said about a request: differences by known answers, one row per way and text."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from hybridlab.audio import Samples, log_mel
from hybridlab.reporting.figures.request import envelope
from hybridlab.widgets.request_player import (
    Answer,
    answers,
    answers_table,
    marked_transcript,
    player_html,
)


def words_of(html: str) -> list[str]:
    """['one', '-two', '+three']: what is kept, struck out and underlined."""
    signed = re.sub(r"<del [^>]*line-through[^>]*>(.*?)</del>", r"-\1", html)
    return re.sub(r"<ins [^>]*underline[^>]*>(.*?)</ins>", r"+\1", signed).split()


@pytest.mark.parametrize(
    ("reference", "transcript", "marked"),
    [
        ("one two three", "One, two three.", ["one", "two", "three"]),
        ("one two three", "one three", ["one", "-two", "three"]),
        ("one three", "one two three", ["one", "+two", "three"]),
        ("one two three", "one four three", ["one", "-two", "+four", "three"]),
        ("one", "", ["-one"]),
    ],
)
def test_differences_are_marked(reference: str, transcript: str, marked: list[str]) -> None:
    assert words_of(marked_transcript(reference, transcript)) == marked


def test_without_a_reference_the_text_stands_as_it_is() -> None:
    assert marked_transcript("", "1 < 2") == "1 &lt; 2"


def trial(strategy: str, variant: str, **values: object) -> dict[str, object]:
    about = {
        "case_id": f"{strategy}-{variant}",
        "experiment": "strategy_comparison",
        "clip_id": "c",
    }
    asked = {
        "question": "which?",
        "transcript": "one two",
        "answer": "one",
        "is_first_request": False,
    }
    return {**about, "strategy": strategy, "variant": variant, **asked, "latency_s": 1.0, **values}


def test_one_row_for_each_way_and_text() -> None:
    trials = pd.DataFrame(
        [
            trial("sequential", "plain", is_first_request=True, latency_s=9.0),
            trial("sequential", "plain"),
            trial("parallel", "threads"),
            trial("parallel", "threads", transcript="one too", latency_s=3.0),
            trial("parallel", "threads", question="another?"),
            trial("sequential", "plain", experiment="soak"),
            trial("solo", "two-requests", transcript=None, answer=None),
        ]
    )
    cases = pd.DataFrame({"case_id": trials["case_id"].unique()})
    found = answers(trials, cases, clip_id="c", question="which?")
    assert [(row.who, row.transcript, row.times, row.latency_s) for row in found] == [
        ("sequential/plain", "one two", 2, 1.0),
        ("parallel/threads", "one two", 1, 1.0),
        ("parallel/threads", "one too", 1, 3.0),
    ]


def test_the_table_judges_answers_and_counts_words() -> None:
    right = Answer(who="a", transcript="one two", answer="One.", times=2, latency_s=0.5)
    wrong = Answer(who="b", transcript="one", answer="two", times=1, latency_s=float("nan"))
    shown = answers_table([right, wrong], reference="one two", expected="one")
    assert "✓ One." in shown
    assert "✗ two" in shown
    assert "0 of 2" in shown
    assert "1 of 2" in shown
    assert "nan" not in shown
    assert "no text" in answers_table([], reference=None, expected=None)


def test_the_player_holds_the_audio_itself(tone: Samples) -> None:
    shown = player_html(tone)
    assert 'src="data:audio/wav;base64,' in shown
    assert "first 120 s" not in shown
    assert "first 120 s" in player_html(np.tile(tone, 61))


def test_log_mel_puts_a_tone_where_it_sounds(tone: Samples) -> None:
    """440 Hz of Slaney's scale (linear, 3 mels per 200 Hz, below 1 kHz; 0 to 8 kHz is 45.2 mels)
    is bin 128 x 6.6 / 45.2; two seconds are 200 frames."""
    mel = log_mel(tone)
    assert mel.shape == (128, 200)
    loudest = mel.mean(axis=1).argmax()
    assert loudest == pytest.approx(128 * (440 * 3 / 200) / 45.2, abs=1)


def test_the_envelope_keeps_every_peak_in_its_place() -> None:
    samples = np.zeros(10_007, dtype=np.float32)
    samples[7_501] = 1.0
    low, high = envelope(samples, columns=100)
    assert len(high) == 100
    assert low.max() == 0.0
    assert high.argmax() == pytest.approx(100 * 7_501 / 10_007, abs=1)
    assert envelope(samples[:5], columns=100)[1].size == 5
