"""Audio from outside, decoded by a real worker: what is refused, and that it survives all of it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.endurance.hostile import (
    BAD,
    GOOD,
    claiming,
    encoded,
    longer_than_said,
    near_silence,
    tone,
)
from hybridlab.audio import check_clip, load_clips, read_audio, windows
from hybridlab.audio.mixing import BLOCK_FRAMES
from hybridlab.processes.worker import Worker
from hybridlab.server.audio_decoder import COPIES, AudioDecoder, decode_audio
from hybridlab.server.errors import ApiError
from hybridlab.server.settings import Settings
from tests.audio.encoding import by_av, pitch_hz, sine

pytestmark = pytest.mark.usefixtures("case_server")


def with_decoder(
    scene: Callable[[AudioDecoder], Awaitable[None]],
    *,
    max_audio_s: float = 60.0,
    timeout_s: float = 20.0,
) -> None:
    async def run() -> None:
        decoder = AudioDecoder(Settings(max_audio_s=max_audio_s, decode_timeout_s=timeout_s))
        await decoder.start()
        try:
            await scene(decoder)
        finally:
            decoder.close()

    asyncio.run(asyncio.wait_for(run(), 40))


async def refused(decoder: AudioDecoder, data: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await decoder.decode(data)
    return caught.value


def test_every_shipped_clip_is_decoded_and_cut_as_the_lab_does() -> None:
    for clip in load_clips():
        found = decode_audio(clip.path.read_bytes(), 100.0)
        expected = read_audio(clip.path)
        np.testing.assert_array_equal(found.samples, expected)
        for piece, own in zip(found.windows(), windows(expected), strict=True):
            np.testing.assert_array_equal(piece, own)
        bounds = found.bounds_s()
        assert bounds[0][0] == 0
        assert bounds[-1][1] == pytest.approx(clip.audio_s)
        assert all(end == start for (_, end), (start, _) in pairwise(bounds))


@pytest.mark.parametrize(
    ("form", "rate", "channels"),
    [("WAV", 8_000, 1), ("FLAC", 48_000, 2), ("OGG", 44_100, 2), ("MP3", 44_100, 1)],
)
def test_formats_rates_and_channels_become_16_khz_mono(form: str, rate: int, channels: int) -> None:
    data = encoded(np.stack([tone(2, rate=rate)] * channels, axis=1), rate=rate, form=form)
    found = decode_audio(data, 10)
    assert found.samples.dtype == np.float32
    assert found.seconds == pytest.approx(2, abs=0.06)
    assert float(np.abs(found.samples[8000:-8000]).max()) == pytest.approx(0.1, abs=0.02)


def test_what_is_no_audio_gets_400_in_one_line_and_the_worker_goes_on() -> None:
    async def scene(decoder: AudioDecoder) -> None:
        for name, data in BAD.items():
            found = await refused(decoder, data)
            assert (found.status_code, "\n" in str(found)) == (400, False), name
        assert (await decoder.decode(GOOD)).seconds == 1
        assert decoder.restarts == 0

    with_decoder(scene)


#: What OpenAI's routes take: flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm.
OF_OPENAI = {
    "flac": lambda voice: encoded(voice, rate=48_000, form="FLAC"),
    "mp3": lambda voice: encoded(voice, rate=48_000, form="MP3"),
    "mp4": lambda voice: by_av(voice, "mp4", "aac", rate=48_000, film="mpeg4"),
    "mpeg": lambda voice: by_av(voice, "mpeg", "mp2", rate=48_000, film="mpeg1video"),
    "mpga": lambda voice: by_av(voice, "mp3", "libmp3lame", rate=48_000),
    "m4a": lambda voice: by_av(voice, "ipod", "aac", rate=48_000),
    "ogg": lambda voice: encoded(voice, rate=48_000, form="OGG"),
    "wav": lambda voice: encoded(voice, rate=48_000),
    "webm": lambda voice: by_av(voice, "webm", "libopus", rate=48_000),
}


def test_every_format_of_openai_s_is_decoded_within_the_worker_s_limits() -> None:
    """Films too; and what is no sound in them, too long or too wide is refused as ever."""
    voice = sine(2.0, rate=48_000)
    no_sound = by_av(voice, "mp4", "aac", rate=48_000, film="mpeg4", tracks=0)
    refusals = {
        "no sound": (no_sound, 400, "the file has no sound in it; name a file that has"),
        "cut": (OF_OPENAI["m4a"](voice)[:4_000], 400, "cannot be decoded as audio"),
        "long": (by_av(sine(8.0, rate=48_000), "webm", "libopus", rate=48_000), 413, "too long"),
        "wide": (
            by_av(np.stack([voice] * 24, axis=1), "matroska", "wavpack", rate=48_000),
            *(400, "the file has 24 channels; mix it down to 8"),
        ),
    }

    async def scene(decoder: AudioDecoder) -> None:
        for name, make in OF_OPENAI.items():
            found = await decoder.decode(make(voice))
            assert found.seconds == pytest.approx(2, abs=0.13), name
            assert pitch_hz(found.samples) == pytest.approx(440, abs=1), name
        for name, (data, status, why) in refusals.items():
            error = await refused(decoder, data)
            assert (error.status_code, why in str(error)) == (status, True), name
            assert "\n" not in str(error)
            assert error.code == ("audio_too_long" if status == 413 else "bad_audio")
        assert decoder.restarts == 0

    with_decoder(scene, max_audio_s=5.0)


def test_a_file_whose_sizes_make_no_sense_takes_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def packets(*_: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr("hybridlab.audio.readers._Packets.frames", packets)
    with pytest.raises(MemoryError, match="Cannot allocate memory"):  # which is answered with 413
        decode_audio(OF_OPENAI["m4a"](sine(rate=48_000)), 60.0)


def test_a_header_that_lies_about_its_length_takes_no_more_than_what_is_there() -> None:
    tracemalloc.start()
    found = decode_audio(longer_than_said(GOOD), 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.seconds == pytest.approx(1, abs=0.01)
    assert peak < 20 * 10**6


def test_a_small_file_that_unpacks_to_hours_is_stopped_at_the_limit() -> None:
    """Two hours of near silence in a FLAC of well under a megabyte."""
    bomb = near_silence(2)
    assert len(bomb) < 10**6

    async def scene(decoder: AudioDecoder) -> None:
        found = await refused(decoder, bomb)
        assert (found.status_code, found.extra["longest_audio_s"]) == (413, 60.0)
        assert (await decoder.decode(GOOD)).seconds == 1

    with_decoder(scene)


def test_what_its_header_says_is_too_long_is_refused_undecoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("soundfile.SoundFile.read", read)
    with pytest.raises(ApiError, match="an audio of 120 min"):
        decode_audio(near_silence(2), 60)


def test_a_header_that_says_less_than_there_is_brings_no_more_in() -> None:
    found = decode_audio(claiming(near_silence(2), 8000 * 50), 60)
    assert found.seconds <= 60
    assert found.note.startswith("only its first 50.0 s were read, as an audio of 60")


@pytest.mark.parametrize(
    ("fault", "status", "why", "logged", "restarts"),
    [
        ("_hang", 400, "longer than 1 s", "", 1),
        ("_swell", 413, "too much memory", "", 0),
        ("_write", 500, "log says why", "File too large", 0),  # it may write no file
    ],
)
def test_a_decoder_s_trouble_is_told_and_the_next_file_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    status: int,
    why: str,
    logged: str,
    restarts: int,
) -> None:
    async def scene(decoder: AudioDecoder) -> None:
        monkeypatch.setattr("hybridlab.server.audio_decoder.decode_audio", globals()[fault])
        found = await refused(decoder, GOOD)
        assert (found.status_code, why in str(found)) == (status, True)
        assert logged in caplog.text
        assert not logged or logged not in str(found)
        monkeypatch.undo()
        assert (await decoder.decode(GOOD)).seconds == 1
        assert decoder.restarts == restarts

    with_decoder(scene, timeout_s=1.0 if fault == "_hang" else 20.0)


def test_a_decoder_that_is_killed_is_replaced_and_only_a_file_that_kills_two_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(decoder: AudioDecoder) -> None:
        (worker,) = decoder._workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        assert (await decoder.decode(GOOD)).seconds == 1
        assert decoder.restarts == 1
        monkeypatch.setattr("hybridlab.server.audio_decoder.decode_audio", _die)
        found = await refused(decoder, GOOD)
        assert (found.status_code, "ended its decoder twice" in str(found)) == (400, True)
        monkeypatch.undo()
        assert (await decoder.decode(GOOD)).seconds == 1
        assert decoder.restarts == 3

    with_decoder(scene)


@pytest.mark.parametrize(
    ("place", "logged"),
    [
        ("hybridlab.processes.worker.Worker.start", "[Errno 28] No space left"),
        ("hybridlab.server.audio_decoder.confine", "current limit exceeds maximum limit"),
    ],
)
def test_a_decoder_that_cannot_be_started_or_confined_gets_no_file_and_is_tried_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str, logged: str
) -> None:
    async def scene(decoder: AudioDecoder) -> None:
        (worker,) = decoder._workers
        worker.kill()
        monkeypatch.setattr(place, _full if place.endswith("start") else _refuse_limits)
        assert [(await refused(decoder, GOOD)).status_code for _ in range(2)] == [500, 500]
        assert "the decoder cannot be started again" in caplog.text
        assert logged in caplog.text
        assert worker.pid is None
        monkeypatch.undo()
        assert (await decoder.decode(GOOD)).seconds == 1
        assert decoder.restarts == 1

    with_decoder(scene)


def test_silence_and_quiet_speech_are_audio() -> None:
    for quiet in (np.zeros(80_000), tone(5) * 1e-5, tone(5) * 0.02):
        found = decode_audio(encoded(quiet, subtype="FLOAT"), 10)
        np.testing.assert_allclose(found.samples, quiet, atol=1e-7)
        assert found.note == ""


def test_less_than_a_tenth_of_a_second_has_openai_s_code() -> None:
    async def scene(decoder: AudioDecoder) -> None:
        for rate in (8_000, 16_000, 44_100):
            found = await refused(decoder, encoded(tone(0.09, rate=rate), rate=rate))
            assert (found.status_code, found.code) == (400, "audio_too_short")
            assert str(found).startswith("the file lasts 0.09 s, too short for a word")
            just = await decoder.decode(encoded(tone(0.1, rate=rate), rate=rate))
            assert just.seconds == pytest.approx(0.1, abs=0.001)

    with_decoder(scene)


def test_odd_audio_is_read_as_the_lab_reads_it_and_says_so(tmp_path: Path) -> None:
    """Opposite phase and integers written as floats, over more than one block."""
    voice = tone(40, rate=48_000)
    odd = encoded(np.stack([voice, -voice], axis=1) * 2**15, rate=48_000, subtype="FLOAT")
    (path := tmp_path / "odd.wav").write_bytes(odd)
    found = decode_audio(odd, 60)
    np.testing.assert_array_equal(found.samples, read_audio(path))
    assert float(np.abs(found.samples).max()) == pytest.approx(0.1, rel=0.01)
    assert found.note == check_clip(path).note
    assert "cancel each other out" in found.note
    assert "divided by 32768" in found.note


def test_channels_in_opposite_phase_take_no_more_memory_than_one() -> None:
    voice = tone(60, rate=48_000).astype(np.float32)
    data = encoded(np.stack([voice, -voice] * 4, axis=1), rate=48_000)
    tracemalloc.start()
    found = decode_audio(data, 60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.note
    assert peak < COPIES * voice.nbytes + 5 * BLOCK_FRAMES * 8 * 8


def _hang(data: bytes, max_audio_s: float) -> None:
    time.sleep(60)


def _die(data: bytes, max_audio_s: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _swell(data: bytes, max_audio_s: float) -> None:
    np.ones(1 << 34)


def _write(data: bytes, max_audio_s: float) -> None:
    # named, since tempfile looks for a folder by writing into it
    with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR", "/tmp")) as file:
        file.write(b"x" * 10_000)
        file.flush()


def _full(worker: Worker) -> Worker:
    raise OSError(errno.ENOSPC, "No space left on device")


def _refuse_limits(more_bytes: int) -> None:
    raise ValueError("current limit exceeds maximum limit")
