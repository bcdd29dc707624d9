"""Files that are no audio, or would be too much of it, as strangers upload them."""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any

import numpy as np
import soundfile


def encoded(samples: Any, *, rate: int = 16_000, form: str = "WAV", **options: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples), rate, format=form, **options)
    return buffer.getvalue()


def tone(seconds: float, *, rate: int = 16_000) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(0.1 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate))


def longer_than_said(data: bytes) -> bytes:
    """A WAV whose header claims 4 GB of samples."""
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", 0xFFFFFFFF) + data[at + 4 :]


def claiming(flac: bytes, frames: int) -> bytes:
    """The same FLAC whose header says that it has so many samples; 0: it does not say."""
    at = 18  # bytes of the rate, then 36 bits of samples among those of channels and bits
    found = int.from_bytes(flac[at : at + 8], "big") >> 36 << 36 | frames
    return flac[:at] + found.to_bytes(8, "big") + flac[at + 8 :]


@cache
def near_silence(hours: int) -> bytes:
    """So many hours in a FLAC of some 100 kB each: it is all zeros but for one sample."""
    samples = np.zeros(hours * 3600 * 8000, np.int16)
    samples[0] = 1000
    return encoded(samples, rate=8000, form="FLAC")


def long_tone(hours: int) -> bytes:
    """So many hours in an OGG, written minute by minute: libsndfile cannot take an hour at once."""
    buffer, minute = io.BytesIO(), tone(60, rate=8000)
    with soundfile.SoundFile(buffer, "w", 8000, 1, format="OGG") as file:
        for _ in range(60 * hours):
            file.write(minute)
    return buffer.getvalue()


GOOD = encoded(tone(1.0))
#: Each is refused as no audio that a model could use.
BAD = {
    "empty": b"",
    "text": b"hello, I am not audio" * 100,
    "only a header": GOOD[:44],
    "noise behind a FLAC's name": b"fLaC" + bytes(range(256)) * 20,
    "a cut FLAC": encoded(tone(1.0), form="FLAC")[:60],
    "a list of other files": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n",
    "not numbers": encoded(np.full(16_000, np.nan), subtype="FLOAT"),
    "a twentieth of a second": encoded(tone(0.05)),
    "many channels": encoded(np.zeros((100, 12)) + 0.1),
    "a rate of nothing": encoded(tone(1.0)[:100], rate=10),
    "html": b"<!doctype html><script>alert(1)</script>",
    "a path": b"/etc/passwd",
    "an address": b"http://example.invalid/a.wav",
}
