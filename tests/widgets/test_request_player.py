"""What was said about a request: one row per way and text, by known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hybridlab.audio import Samples, log_mel
from hybridlab.reporting.figures.request import envelope
from hybridlab.reporting.rows import RACE
from hybridlab.widgets.request_player import answers, answers_html, player_html
from tests.reporting.frames import frame


def test_one_row_for_each_way_and_text() -> None:
    texts = ("c", "which?", "one two", "one")
    trials = frame(
        "experiment strategy variant is_first_request latency_s clip_id question transcript answer",
        (RACE, "sequential", "plain", True, 9.0, *texts),
        (RACE, "sequential", "plain", False, 1.0, *texts),
        (RACE, "parallel", "threads", False, 1.0, *texts),
        (RACE, "parallel", "threads", False, 3.0, "c", "which?", "one too", "one"),
        (RACE, "parallel", "threads", False, 1.0, "c", "another?", "one two", "one"),
        ("soak", "sequential", "plain", False, 1.0, *texts),
        (RACE, "solo", "two-requests", False, 1.0, "c", "which?", None, None),
    )
    trials = trials.assign(case_id=trials["strategy"])
    cases = pd.DataFrame({"case_id": trials["case_id"].unique()})
    found = answers(trials, cases, clip_id="c", question="which?")
    shown = found[["who", "transcript", "times", "latency_s"]]
    assert list(shown.itertuples(index=False, name=None)) == [
        ("sequential/plain", "one two", 2, 1.0),
        ("parallel/threads", "one two", 1, 1.0),
        ("parallel/threads", "one too", 1, 3.0),
    ]


def test_the_table_judges_answers_and_counts_words() -> None:
    rows = frame(
        "who transcript answer times latency_s",
        ("a", "one two", "One.", 2, 0.5),
        ("b", "1 < 2", "two", 1, float("nan")),
    )
    shown = answers_html(rows, reference="one two", question="which?", expected="one")
    for words in ("✓ One.", "✗ two", "0 of 2", "2 of 2", "1 &lt; 2", "<b>which?</b>"):
        assert words in shown
    assert "nan" not in shown
    none = answers_html(rows.iloc[:0], reference="", question="which?", expected="")
    assert "no text" in none and "Reference: <b>none</b>" in none


def test_a_text_that_was_cut_short_is_neither_judged_nor_counted() -> None:
    rows = frame(
        "who transcript transcript_finish answer answer_finish times latency_s",
        ("a", "one", "early", "One.", "length", 2, 0.5),
    )
    shown = answers_html(rows, reference="one two", question="which?", expected="one")
    assert "one <i>(ended with audio left unread)</i>" in shown
    assert "One. <i>(cut at the limit of tokens)</i>" in shown
    assert "✓" not in shown and "✗" not in shown and " of 2" not in shown


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
