"""Files as phones, browsers, telephones and films have them: each is made here and read back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridlab.audio import Samples
from hybridlab.audio.decoding import read_recording
from hybridlab.audio.mixing import CANCELLED_NOTE, Extent
from hybridlab.audio.readers import UnreadableError, read_sndfile
from hybridlab.errors import AudioError
from tests.audio.encoding import by_av, by_sndfile, pitch_hz, sine, written

HZ = 440.0
Make = Callable[[], bytes]


def of(rate: int, channels: int = 1) -> Samples:
    one = sine(2.0, hz=HZ, rate=rate)
    return one if channels == 1 else np.stack([one] * channels, axis=1)


def snd(rate: int, channels: int, form: str, subtype: str = "") -> Make:
    return lambda: by_sndfile(of(rate, channels), rate=rate, form=form, subtype=subtype)


def ffm(rate: int, channels: int, container: str, codec: str, *, film: str = "") -> Make:
    return lambda: by_av(of(rate, channels), container, codec, rate=rate, film=film)


#: Each holds two seconds of a tone in all its channels. PyAV comes without encoders of GSM, Speex,
#: DTS, AMR-WB and WMA Pro; its decoders of them have no test here.
KINDS: dict[str, Make] = {
    "studio.wav": snd(48_000, 2, "WAV", "PCM_24"),
    "float.wav": snd(96_000, 1, "WAV", "FLOAT"),
    "telephone-mulaw.wav": snd(8_000, 1, "WAV", "ULAW"),
    "telephone-gsm.wav": snd(8_000, 1, "WAV", "GSM610"),
    "dictaphone-adpcm.wav": snd(22_050, 1, "WAV", "IMA_ADPCM"),
    "telephone-g726.wav": ffm(8_000, 1, "wav", "g726"),
    "mp3-inside.wav": ffm(44_100, 1, "wav", "libmp3lame"),
    "song.flac": snd(44_100, 2, "FLAC"),
    "voice.ogg": snd(44_100, 1, "OGG", "VORBIS"),
    "whatsapp.opus": ffm(48_000, 1, "ogg", "libopus"),
    "old.mp3": snd(44_100, 2, "MP3"),
    "podcast.mpga": ffm(22_050, 1, "mp3", "libmp3lame"),
    "apple.aiff": snd(44_100, 2, "AIFF"),
    "apple.caf": ffm(44_100, 1, "caf", "pcm_s16be"),
    "unix.au": snd(8_000, 1, "AU", "ULAW"),
    "memo.m4a": ffm(44_100, 1, "ipod", "aac"),
    "lossless.m4a": ffm(44_100, 2, "ipod", "alac"),
    "phone.3gp": ffm(8_000, 1, "3gp", "libopencore_amrnb"),
    "phone.amr": ffm(8_000, 1, "amr", "libopencore_amrnb"),
    "radio.aac": ffm(22_050, 1, "adts", "aac"),
    "film.mp4": ffm(48_000, 2, "mp4", "aac", film="mpeg4"),
    "camera.mov": ffm(48_000, 2, "mov", "pcm_s16le", film="mpeg4"),
    "recorder.webm": ffm(48_000, 1, "webm", "libopus"),
    "meeting.webm": ffm(48_000, 2, "webm", "libopus", film="libvpx"),
    "music.mka": ffm(44_100, 2, "matroska", "libmp3lame"),
    "surround.mkv": ffm(48_000, 6, "matroska", "ac3", film="mpeg4"),
    "disc.mpeg": ffm(44_100, 2, "mpeg", "mp2", film="mpeg1video"),
    "stream.mts": ffm(48_000, 2, "mpegts", "aac"),
    "disc.ac3": ffm(48_000, 6, "ac3", "ac3"),
    "windows.wma": ffm(44_100, 2, "asf", "wmav2"),
    "windows.avi": ffm(44_100, 2, "avi", "libmp3lame", film="mpeg4"),
    "flash.flv": ffm(44_100, 2, "flv", "aac"),
    "archive.wv": ffm(44_100, 2, "wv", "wavpack"),
    "archive.tta": ffm(44_100, 2, "tta", "tta"),
    "double.nut": ffm(16_000, 1, "nut", "pcm_f64le"),
    "wide.nut": ffm(16_000, 1, "nut", "pcm_s64le"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_tone_stays_what_it_is_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    data = KINDS[name]()
    found = read_recording(written(tmp_path, name, data))
    # codecs of blocks fill the last one, and AAC and AMR begin with one of their own
    assert found.seconds == pytest.approx(2.0, abs=0.13)
    middle = found.samples[4_000:-4_000]
    assert pitch_hz(middle) == pytest.approx(HZ, abs=1.0)
    assert float(middle.std()) == pytest.approx(0.5 / 2**0.5, rel=0.2)
    assert found.note == ""
    # from bytes alone, as the server has them, just the same
    np.testing.assert_array_equal(read_recording(data, name="it").samples, found.samples)


# -------------------------------------------------------------------------- channels and tracks


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("matroska", "pcm_f32le", 44_100), ("ipod", "alac", 44_100), ("webm", "libopus", 48_000)],
)
def test_of_opposite_phases_the_louder_channel_is_heard(
    container: str, codec: str, rate: int
) -> None:
    one = sine(hz=HZ, rate=rate)
    found = read_recording(by_av(np.stack([0.9 * one, -one], axis=1), container, codec, rate=rate))
    assert found.note == CANCELLED_NOTE
    assert float(np.abs(found.samples[1000:-1000]).max()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s16le", "pcm_s32le"])
def test_channels_are_averaged_and_never_clip(codec: str) -> None:
    one = sine(hz=HZ, peak=0.99)
    for left, right in ((one, one), (one, 0 * one)):
        found = read_recording(by_av(np.stack([left, right], axis=1), "matroska", codec))
        np.testing.assert_allclose(found.samples, (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "codec", "container"),
    [("7.1", "libopus", "matroska"), ("7.1", "aac", "mp4"), ("22.2", "wavpack", "matroska")],
)
def test_many_channels_are_each_a_part_of_the_mean(layout: str, codec: str, container: str) -> None:
    count = {"7.1": 8, "22.2": 24}[layout]  # every second one is silent
    channels = np.stack([sine(rate=48_000) * (1 - index % 2) for index in range(count)], axis=1)
    found = read_recording(by_av(channels, container, codec, rate=48_000))
    middle = found.samples[4_000:-4_000]
    assert pitch_hz(middle) == pytest.approx(HZ, abs=1.0)
    assert float(middle.std()) == pytest.approx(0.25 / 2**0.5, rel=0.2)


def test_of_several_tracks_the_first_is_read_and_said() -> None:
    found = read_recording(by_av(of(48_000), "mp4", "aac", rate=48_000, tracks=2))
    assert pitch_hz(found.samples) == pytest.approx(HZ, abs=1.0)
    assert found.note == "it has 2 sound tracks; track 1 was read"


def test_a_film_without_sound_says_so() -> None:
    with pytest.raises(AudioError, match=r"^cut\.mp4 has no sound in it; name a file that has$"):
        read_recording(
            by_av(of(48_000), "mp4", "aac", rate=48_000, film="mpeg4", tracks=0), name="cut.mp4"
        )


# -------------------------------------------------------------------------------------- damage


def wav(*, said_bytes: int, kept: float = 1.0) -> bytes:
    """Two seconds as a WAV whose header says that it holds so many bytes."""
    data = bytearray(by_sndfile(of(16_000)))
    struct.pack_into("<I", data, 4, said_bytes)
    struct.pack_into("<I", data, data.index(b"data") + 4, said_bytes)
    return bytes(data[: round(len(data) * kept)])


@pytest.mark.parametrize("said_bytes", [0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("kept", [1.0, 0.6])
def test_a_wav_of_a_wrong_length_is_read_as_far_as_it_goes(said_bytes: int, kept: float) -> None:
    found = read_recording(wav(said_bytes=said_bytes, kept=kept))
    assert found.seconds == pytest.approx(2 * kept, abs=0.01)
    assert pitch_hz(found.samples) == pytest.approx(HZ, abs=1.0)


def test_what_is_left_of_a_damaged_file_is_read_and_said() -> None:
    noise = np.random.default_rng(0).standard_normal(64_000) / 10
    flac = by_sndfile(noise, form="FLAC")
    cut = read_recording(flac[: len(flac) // 2])
    assert 1.5 < cut.seconds <= 2.1
    assert "it says that it lasts 4.0 s, and " in cut.note
    holed = read_recording(flac[:30_000] + bytes(9_000) + flac[39_000:])
    assert 2.5 < holed.seconds < 4.0
    assert "it says that it lasts 4.0 s, and " in holed.note


def joined(form: str, subtype: str = "") -> bytes:
    """Two recordings one after the other, as `cat` or a recorder that paused joins them."""
    return by_sndfile(noise(), form=form, subtype=subtype) * 2


def half_said() -> bytes:
    """A FLAC whose header says that it holds one second of its two."""
    flac = bytearray(by_sndfile(noise(), form="FLAC"))
    flac[22:26] = (16_000).to_bytes(4, "big")
    return bytes(flac)


def noise() -> Samples:
    return np.asarray(np.random.default_rng(0).standard_normal(32_000) / 10, dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "seconds"),
    [
        (lambda: joined("OGG", "VORBIS"), 4.0),
        (lambda: joined("OGG", "OPUS"), 4.0),
        (lambda: joined("MP3"), 4.0),
        (lambda: joined("FLAC"), 4.0),
        (half_said, 2.0),
    ],
    ids=["vorbis", "opus", "mp3", "flac", "header"],
)
def test_nothing_behind_the_first_stream_is_lost(
    tmp_path: Path, make: Make, seconds: float
) -> None:
    data = make()
    for source in (data, written(tmp_path, "x", data)):
        assert read_recording(source, name="x").seconds == pytest.approx(seconds, abs=0.2)


def test_what_cannot_be_read_behind_the_first_stream_is_said() -> None:
    other = by_sndfile(noise(), rate=22_050, form="OGG", subtype="VORBIS")
    found = read_recording(by_sndfile(noise(), form="OGG", subtype="VORBIS") + other)
    assert found.seconds == pytest.approx(2.0, abs=0.01)
    assert "cannot be read to its end" in found.note


def test_descriptions_behind_the_sound_are_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    mp3 = by_sndfile(of(44_100), rate=44_100, form="MP3")
    tagged = read_recording(mp3 + b"TAG" + bytes(125))
    assert (tagged.seconds, tagged.note) == (read_recording(mp3).seconds, "")
    monkeypatch.setattr("hybridlab.audio.decoding.read_container", None)  # nobody asks FFmpeg
    tail = b"LIST" + (20_000).to_bytes(4, "little") + bytes(20_000)
    found = read_recording(by_sndfile(of(16_000)) + tail)
    assert (found.seconds, found.note) == (2.0, "")


def test_a_text_that_is_called_audio_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libsndfile's own decoders print what they think of it where it tells them a name."""
    with pytest.raises(AudioError, match=r"cannot be decoded"):
        read_recording(written(tmp_path, "text.mp3", b"hello " * 1000))
    assert capfd.readouterr() == ("", "")


def test_an_mp3_behind_junk_and_one_that_is_cut_are_read() -> None:
    mp3 = by_sndfile(of(44_100), rate=44_100, form="MP3")
    assert read_recording(bytes(5_000) + mp3).seconds == pytest.approx(2.0, abs=0.2)
    assert read_recording(mp3[: len(mp3) // 2]).seconds == pytest.approx(1.0, abs=0.2)


def test_random_and_foreign_bytes_are_refused_in_one_line_that_names_them() -> None:
    rng = np.random.default_rng(0)
    foreign = {
        "photo.png": b"\x89PNG\r\n\x1a\n" + rng.bytes(3_000),
        "table.xlsx": b"PK\x03\x04" + rng.bytes(3_000),
        "letter.pdf": b"%PDF-1.7\n" + rng.bytes(3_000),
        "page.html": b"<!doctype html><p>hello</p>" * 50,
        "note.txt": b"hello, I am no audio\n" * 50,
        "unfinished.m4a": by_av(of(44_100), "ipod", "aac", rate=44_100)[:9_000],  # no index yet
        **{f"random-{index}.bin": rng.bytes(50_000) for index in range(10)},
    }
    for name, data in foreign.items():
        with pytest.raises(AudioError) as caught:
            read_recording(data, name=name)
        assert str(caught.value).startswith(f"{name} cannot be decoded as audio (")
        assert str(caught.value).endswith("convert it to WAV, FLAC, MP3 or M4A")
        assert "\n" not in str(caught.value)


def test_no_file_makes_another_one_be_read(tmp_path: Path) -> None:
    secret = written(tmp_path, "secret.wav", by_sndfile(of(16_000)))
    for name, text in {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    }.items():
        for source in (text.encode(), written(tmp_path, name, text.encode())):
            with pytest.raises(AudioError, match="cannot be decoded as audio"):
                read_recording(source, name=name)


# ---------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("container", "codec", "said"),
    [("mp4", "aac", True), ("mpegts", "aac", False), ("adts", "aac", False)],
)
def test_too_long_is_told_by_the_header_or_while_decoding(
    container: str, codec: str, said: bool
) -> None:
    data = by_av(sine(20.0, rate=48_000), container, codec, rate=48_000)
    seen: list[float] = []

    def check(extent: Extent) -> None:
        seen.append(extent.seconds)
        if extent.seconds > 5:
            raise AudioError("enough")

    with pytest.raises(AudioError, match="enough"):
        read_recording(data, check=check)
    assert seen[-1] == pytest.approx(20 if said else 5, abs=0.1)
    assert (len(seen) == 1) == said


def test_what_libsndfile_reads_stays_libsndfile_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("FFmpeg was asked")

    monkeypatch.setattr("hybridlab.audio.decoding.read_container", never)
    for name in ("studio.wav", "song.flac", "voice.ogg", "old.mp3", "apple.aiff", "unix.au"):
        assert read_recording(KINDS[name]()).seconds == pytest.approx(2.0, abs=0.1)
    with pytest.raises(UnreadableError):
        read_sndfile(KINDS["memo.m4a"](), lambda extent: None)
