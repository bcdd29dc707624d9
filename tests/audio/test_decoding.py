"""Audio that is not as it should be: what is heard of it, what is said of it, what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hybridlab import audio
from hybridlab.audio import Samples
from hybridlab.audio.decoding import Recording, read_recording
from hybridlab.audio.mixing import BLOCK_FRAMES, CANCELLED_NOTE
from hybridlab.errors import AudioError, AudioTooShortError

RATE = 16_000


def voice(seconds: float = 2.0, *, seed: int = 0) -> Samples:
    """Noise that comes and goes as speech does, peak 0.5."""
    count = round(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal(count)
    noise *= 1 + np.sin(2 * np.pi * 3 * np.arange(count) / RATE)
    return (0.5 * noise / np.abs(noise).max()).astype(np.float32)


def recorded(folder: Path, *channels: Samples, rate: int = RATE) -> Recording:
    path = folder / "x.wav"
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="FLOAT")
    return read_recording(path)


# --------------------------------------------------------------------------------------- channels


def test_of_channels_in_opposite_phase_the_louder_one_is_heard(tmp_path: Path) -> None:
    one = voice()
    for left, right, heard in ((one, -one, one), (0.9 * one, -one, -one), (one, -0.9 * one, one)):
        found = recorded(tmp_path, left, right)
        np.testing.assert_array_equal(found.samples, heard)
        assert found.note == CANCELLED_NOTE


def test_a_constant_in_each_channel_hides_no_opposite_phase(tmp_path: Path) -> None:
    one = voice()
    found = recorded(tmp_path, one + 0.3, 0.3 - one)
    assert found.note == CANCELLED_NOTE
    assert np.corrcoef(found.samples, one)[0, 1] == pytest.approx(1)


def test_opposite_phase_in_a_part_of_a_file_costs_no_part_of_it(tmp_path: Path) -> None:
    seconds = BLOCK_FRAMES / RATE
    one = voice(2 * seconds)
    other = one.copy()
    other[BLOCK_FRAMES:] *= -1
    found = recorded(tmp_path, one, other)
    np.testing.assert_allclose(found.samples, one, atol=1e-7)
    assert found.note == CANCELLED_NOTE


@pytest.mark.parametrize("silent", [1, 2, 5, 7])
def test_one_voice_in_one_of_many_channels_is_mixed_as_ever(tmp_path: Path, silent: int) -> None:
    one = voice()
    found = recorded(tmp_path, one, *[np.zeros_like(one)] * silent)
    np.testing.assert_allclose(found.samples, one / (1 + silent), atol=1e-7)
    assert found.note == ""


def test_two_speakers_and_silence_are_mixed_as_ever(tmp_path: Path) -> None:
    one, two = voice(seed=1), voice(seed=2)
    for left, right in ((one, two), (0 * one, 0 * two), (one, -0.5 * one), (one, one)):
        found = recorded(tmp_path, left, right)
        np.testing.assert_allclose(found.samples, (left + right) / 2, atol=1e-7)
        assert found.note == ""


# ------------------------------------------------------------------------------------------ scale


@pytest.mark.parametrize(
    ("factor", "divided_by"),
    [(200, 2**7), (30_000, 2**15), (2**16, 2**15), (2**24, 2**23), (2**32, 2**31), (5000, 2**15)],
)
def test_integers_written_as_floats_come_back_into_range(
    tmp_path: Path, factor: float, divided_by: int
) -> None:
    one = voice()
    found = recorded(tmp_path, one * np.float32(factor))
    np.testing.assert_allclose(found.samples, one * factor / divided_by, rtol=1e-5)
    assert found.note.endswith(f"instead of 1; they were divided by {divided_by}")


@pytest.mark.parametrize("factor", [1e-3, 1, 2.1, 40, 127])
def test_audio_that_is_merely_quiet_or_loud_is_left_as_it_is(tmp_path: Path, factor: float) -> None:
    one = voice() * np.float32(factor)
    assert float(np.abs(one).max()) < 64
    found = recorded(tmp_path, one)
    np.testing.assert_array_equal(found.samples, one)
    assert found.note == ""


def test_values_beyond_every_integer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"values up to 5e\+19, which is no audio"):
        recorded(tmp_path, voice() * np.float32(1e20))
    with pytest.raises(AudioError, match="not numbers"):
        recorded(tmp_path, np.full(RATE, np.inf, np.float32), np.full(RATE, -np.inf, np.float32))


# ------------------------------------------------------------------------------------------- clips


def test_a_clip_s_note_is_kept_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded(tmp_path, voice() * np.float32(30_000))
    with caplog.at_level(logging.WARNING, logger="hybridlab.audio"):
        (clip,) = audio.load_clips(str(tmp_path))
    assert "divided by 32768" in clip.note
    (record,) = caplog.records
    assert record.getMessage() == f"{clip.path}: {clip.note}"
    caplog.clear()
    assert {clip.note for clip in audio.load_clips()} == {""}
    assert not caplog.records


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_under_a_tenth_of_a_second_is_too_short_for_a_word(tmp_path: Path, rate: int) -> None:
    count = rate // 10
    found = recorded(tmp_path, voice()[:count], rate=rate)
    assert found.seconds == pytest.approx(0.1, abs=1e-3)
    with pytest.raises(AudioTooShortError, match=r"lasts 0\.0\S+ s, too short .* at least 0\.1 s"):
        recorded(tmp_path, voice()[: count - 1], rate=rate)


def test_silence_is_read_and_is_no_clip_to_measure_with(tmp_path: Path) -> None:
    found = recorded(tmp_path, np.zeros(RATE, np.float32))
    assert (found.seconds, found.note) == (1.0, "")
    with pytest.raises(AudioError, match="is silent"):
        audio.load_clips(str(tmp_path))
