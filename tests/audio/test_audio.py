from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab import audio
from hybridlab.audio import Samples
from hybridlab.errors import AudioError
from hybridlab.planner import Request


def test_any_rate_and_channels_become_16_khz_mono(tmp_path: Path) -> None:
    t = np.arange(44_100) / 44_100
    wave = 0.5 * np.sin(2 * np.pi * 1000 * t)
    soundfile.write(tmp_path / "x.wav", np.stack([wave, wave], axis=1), 44_100)
    samples = audio.read_audio(tmp_path / "x.wav")
    assert samples.dtype == np.float32
    assert samples.size == pytest.approx(16_000, abs=2)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) == pytest.approx(1000, abs=2)


def test_missing_empty_corrupt_silent_and_too_long(tmp_path: Path, tone: Samples) -> None:
    def expect(path: Path, message: str, **options: float) -> None:
        with pytest.raises(AudioError, match=message):
            audio.check_clip(path, **options)

    expect(tmp_path / "none.wav", "does not exist")
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    expect(tmp_path / "bad.wav", "cannot be decoded")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    expect(tmp_path / "empty.wav", "holds no samples")
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    expect(tmp_path / "silent.wav", "is silent")
    soundfile.write(tmp_path / "long.wav", tone, 16_000)
    expect(tmp_path / "long.wav", "Voxtral takes at most", max_s=1.0)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    expect(tmp_path / "nan.wav", "not numbers")


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 100.0), st.integers(0, 5))
def test_windows_lose_nothing_and_stay_short(seconds: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(seconds * 16_000)).astype(np.float32)
    pieces = audio.windows(samples)
    assert np.array_equal(np.concatenate(pieces), samples)
    assert all(0 < piece.size <= 480_000 for piece in pieces)


def test_a_window_ends_in_the_longest_pause() -> None:
    samples = np.ones(40 * 16_000, np.float32)
    samples[26 * 16_000 : 27 * 16_000] = 0
    samples[29 * 16_000 : 29 * 16_000 + 3_200] = 0
    first = audio.windows(samples)[0]
    assert 26.0 <= first.size / 16_000 <= 27.0


@settings(max_examples=30, deadline=None)
@given(st.floats(30.1, 400.0), st.integers(0, 5))
def test_windows_are_long_and_as_few_as_planned(seconds: float, seed: int) -> None:
    loudness = np.random.default_rng(seed).uniform(0.1, 1, round(seconds) + 1)
    noise = np.repeat(loudness, 16_000)[: round(seconds * 16_000)].astype(np.float32)
    *long, last = [piece.size / 16_000 for piece in audio.windows(noise)]
    assert len(long) + 1 <= Request(audio_s=noise.size / 16_000).whisper_windows
    assert all(length >= 20 for length in long)
    assert last >= 5


def test_manifests_and_folders(tmp_path: Path, tone: Samples) -> None:
    soundfile.write(tmp_path / "a.wav", tone, 16_000)
    assert [clip.id for clip in audio.load_clips(str(tmp_path))] == ["a"]
    row = {"path": "a.wav", "id": "x", "text": "hello", "question": "Why?", "answer": "so"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    (clip,) = audio.load_clips(str(tmp_path))
    assert (clip.id, clip.text, clip.questions[0].text) == ("x", "hello", "Why?")
    (tmp_path / "m.csv").write_text("path,text\na.wav,hello\n")
    assert audio.load_clips(str(tmp_path / "m.csv"))[0].text == "hello"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no clips"),
        ("{", "line 1 is not JSON"),
        ("[1]", "object"),
        ("{}", "without a path"),
    ],
)
def test_bad_manifests(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(content)
    with pytest.raises(AudioError, match=message):
        audio.load_clips(str(path))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="holds no audio"):
        audio.load_clips(str(tmp_path))
