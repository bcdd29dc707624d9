"""The sounds that need no package: what they are, and that they are the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from tools import real_speech
from tools.real_speech import NON_SPEECH, Recording

RATE = 16_000


@pytest.mark.parametrize("kind", NON_SPEECH)
def test_non_speech_is_audible_float32_and_the_same_every_time(kind: str) -> None:
    samples = NON_SPEECH[kind](3.0)
    assert (samples.dtype, samples.shape) == (np.float32, (3 * RATE,))
    assert np.array_equal(samples, NON_SPEECH[kind](3.0))
    assert 0 < np.abs(samples).max() <= 1 or kind == "silence"
    assert np.abs(samples).max() > 1e-3 or kind in ("silence", "dither")


def test_coloured_noise_falls_by_3_and_6_db_an_octave() -> None:
    def octave_db(kind: str) -> float:
        """Power between 400 and 800 Hz over that between 800 and 1,600 Hz, at equal width."""
        power = np.abs(np.fft.rfft(NON_SPEECH[kind](20.0))) ** 2
        low, high = power[8_000:16_000].mean(), power[16_000:32_000].mean()
        return float(10 * np.log10(low / high))

    assert octave_db("white") == pytest.approx(0, abs=0.3)
    assert octave_db("pink") == pytest.approx(3, abs=0.3)
    assert octave_db("brown") == pytest.approx(6, abs=0.3)


def word(text: str, seconds: float) -> Recording:
    return Recording(text, np.full(round(seconds * RATE), 0.1, np.float32), text)


def test_joins_keep_every_word_and_put_silence_between() -> None:
    both = real_speech.joined("both", [word("one", 1), word("two", 2)], pauses_s=12)
    assert (both.text, both.audio_s) == ("one two", 15)
    assert not both.samples[RATE : 13 * RATE].any() and both.samples[13 * RATE :].all()
    quiet = real_speech.joined(
        "quiet", [real_speech.of_noise("pink", 5), word("one", 1)], pauses_s=[0]
    )
    assert (quiet.text, quiet.audio_s) == ("one", 6)


def test_shuffles_say_all_before_any_again() -> None:
    words = [word(text, 1) for text in "abcde"]
    long = real_speech.shuffled("long", words, 10)
    said = long.text.split()
    assert len(said) == 9 and long.audio_s == 11
    assert set(said[:5]) == set("abcde") and len(set(said[5:])) == 4
    assert long.text == real_speech.shuffled("long", words, 10).text


def test_noise_lies_so_far_below_the_speech() -> None:
    clean = word("one", 10)
    noise = real_speech.noisy(clean, 8).samples - clean.samples
    assert 10 * np.log10(0.01 / np.mean(noise.astype(float) ** 2)) == pytest.approx(8, abs=0.1)


def test_words_are_compared_after_whispers_normaliser_of_the_language() -> None:
    english = Recording("en", np.zeros(1, np.float32), "mister smith's ten cards")
    assert english.alignment("Mr. Smith's 10 cards!").wer == 0
    german = Recording("de", np.zeros(1, np.float32), "Grüße, Jan!", "de")
    assert german.alignment("grüße jan").wer == 0
    assert german.alignment("grüße an jan").insertions == 1
