"""The server with released Whisper weights and real speech: what only they can show."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from openai import OpenAI

from benchmarks.endurance.server import started
from hybridlab.audio import Samples
from hybridlab.server.subtitles import LINE_CHARS, MAX_CUE_S, MAX_LINES
from tools import real_speech

pytestmark = pytest.mark.real

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[OpenAI]:
    options = {"asr-model": "base", "asr-weights": "local", "asr-path": weights, "only": "asr"}
    with started(*(f"--{name}={value}" for name, value in options.items())) as running:
        yield OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)


def file_of(*pieces: Samples) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate(pieces), RATE_HZ, format="WAV")
    return "speech.wav", buffer.getvalue()


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_subtitles_can_be_read_and_start_where_speech_does(client: OpenAI) -> None:
    clips = real_speech.librivox()
    silence = np.zeros(12 * RATE_HZ, np.float32)
    file = file_of(silence, *(one.samples for one in clips))
    srt = str(
        client.audio.transcriptions.create(model="whisper-1", file=file, response_format="srt")
    )
    cues = re.findall(r"\d+\n(\S+) --> (\S+)\n((?:.+\n)+)", srt)
    assert len(cues) >= 5
    assert 11.5 < seconds(cues[0][0]) < 13.5
    for start, end, text in cues:
        assert 0 < seconds(end) - seconds(start) <= MAX_CUE_S + 0.001
        lines = text.splitlines()
        assert len(lines) <= MAX_LINES
        assert max(map(len, lines)) <= LINE_CHARS
    whole = client.audio.transcriptions.create(model="whisper-1", file=file)
    shown = "".join("".join(text.split()) for *_, text in cues)  # a line may end in a hyphen
    assert shown == "".join(whole.text.split())


def test_words_have_times_within_their_segments_and_rise(client: OpenAI) -> None:
    one = real_speech.librivox()[0]
    found = client.audio.transcriptions.create(
        model="whisper-1",
        file=file_of(one.samples),
        response_format="verbose_json",
        timestamp_granularities=["word"],
    )
    assert found.words is not None
    assert " ".join(word.word for word in found.words) == found.text
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert all(0 <= word.start <= word.end <= found.duration + 0.01 for word in found.words)
    for segment in found.segments or []:
        assert segment.avg_logprob < 0
        assert 0 <= segment.no_speech_prob <= 1
        assert segment.compression_ratio > 0


def test_another_language_is_detected_told_and_translated(client: OpenAI) -> None:
    file = file_of(real_speech.german(21).samples)
    heard = client.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json"
    )
    assert heard.language == "de"
    assert "Guten Morgen" in heard.text
    english = client.audio.translations.create(
        model="whisper-1", file=file, response_format="verbose_json"
    )
    assert english.language == "en"
    assert english.text
    assert "Guten" not in english.text


def test_no_speech_is_an_empty_transcript(client: OpenAI) -> None:
    create = client.audio.transcriptions.create
    for samples in (np.zeros(5 * RATE_HZ, np.float32), real_speech.pink(5)):
        assert create(model="whisper-1", file=file_of(samples)).text == ""
        stream = create(model="whisper-1", file=file_of(samples), stream=True)
        assert [event.type for event in stream] == ["transcript.text.done"]


def test_a_long_transcript_is_streamed_window_by_window(client: OpenAI) -> None:
    file = file_of(*(one.samples for one in real_speech.librivox() * 2))
    whole = client.audio.transcriptions.create(model="whisper-1", file=file).text
    *deltas, done = client.audio.transcriptions.create(model="whisper-1", file=file, stream=True)
    assert len(deltas) >= 2
    assert "".join(one.delta for one in deltas) == done.text
    assert done.text == whole
