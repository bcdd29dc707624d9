"""Files into samples as the lab has them: one channel, at 16 kHz, in a range that Whisper hears.

Decoding is libsndfile's and resampling soxr's: no ffmpeg.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlab import catalog
from hybridlab.errors import AudioError, AudioTooShortError

Samples = NDArray[np.float32]

#: Frames decoded at a time, each of `channels` float32.
BLOCK_FRAMES = 1 << 18
#: Below this share of the loudest channel the mean of all is no sum of theirs: they cancel. One
#: voice in one of eight channels leaves an eighth, noises of their own more.
CANCELLED = 0.1
CANCELLED_NOTE = "the channels cancel each other out; the louder one was taken"
#: Peak up to which Whisper hears right. Its features are logarithms, which a factor shifts: with
#: its base size speech is right from 2^-10 to 2^6, wrong from 100 on and noise from 1000 on.
LOUDEST_PEAK = 2.0**6
#: Full scales of integers, by which a float file of a larger peak is divided.
FULL_SCALES = (2.0**7, 2.0**15, 2.0**23, 2.0**31)


@dataclass(frozen=True)
class Recording:
    """Decoded audio."""

    #: float32 mono at 16 kHz, shape (n,).
    samples: Samples
    #: What was done to it so that it can be heard, for the reader; '' for nothing.
    note: str = ""

    @property
    def seconds(self) -> float:
        return self.samples.size / catalog.SAMPLE_RATE_HZ


def read_recording(path: Path) -> Recording:
    """Any file that libsndfile reads. `AudioError` for one that holds no audio."""
    import soundfile

    if not path.is_file():
        raise AudioError(f"audio file {str(path)!r} does not exist")
    try:
        with soundfile.SoundFile(path) as file:
            mono, rate = read_mono(file), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            f"{path} cannot be decoded ({error}); convert it to WAV, FLAC, OGG or MP3"
        ) from None
    return prepared(mono, rate, name=str(path))


@dataclass(frozen=True)
class Mono:
    """All frames of a file in one channel at the file's own rate, shape (n,)."""

    samples: Samples
    #: In some block the mean of the channels was nothing, and the loudest was taken.
    cancelled: bool = False


def read_mono(file: Any, check: Callable[[int], None] = lambda _: None) -> Mono:
    """What an open `soundfile.SoundFile` has from here on, mixed block by block: many channels take
    no more memory than one. `check` is called with the frames so far, and may raise."""
    blocks: list[Samples] = []
    count, cancelled = 0, False
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        count += len(block)
        check(count)
        mixed = _mixed(block)
        blocks.append(mixed.samples)
        cancelled |= mixed.cancelled
    return Mono(np.concatenate(blocks) if blocks else np.zeros(0, np.float32), cancelled)


def _mixed(block: Samples) -> Mono:
    """The mean of the channels of (n, channels), or the loudest where the mean cancels them out, as
    of a microphone with balanced wires that was recorded in stereo."""
    if block.shape[1] == 1:
        return Mono(block[:, 0])
    with np.errstate(invalid="ignore"):  # values that are not numbers are refused later
        mean: Samples = block.mean(axis=1)
        loudness = block.std(axis=0, dtype=np.float64)  # about the mean: a constant is no sound
        if mean.std(dtype=np.float64) < CANCELLED * loudness.max():
            # the first of equally loud ones, so that no border of blocks turns the phase around
            loudest = int(np.argmax(loudness >= 0.99 * loudness.max()))
            return Mono(block[:, loudest].copy(), cancelled=True)
    return Mono(mean)


def prepared(mono: Mono, rate: int, *, name: str) -> Recording:
    """Decoded samples at `rate` per second as the lab has all audio. `name` stands in the
    `AudioError` for what holds none, too few of them (`AudioTooShortError`) or no numbers."""
    import soxr

    samples = mono.samples
    if samples.size == 0:
        raise AudioError(f"{name} holds no samples; remove it or record it again")
    if samples.size < catalog.MIN_AUDIO_S * rate:
        raise AudioTooShortError(
            f"{name} lasts {samples.size / rate:.4g} s, too short for a word; at least "
            f"{catalog.MIN_AUDIO_S:g} s are needed"
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds values that are not numbers; export it again")
    samples, scaled = _in_range(samples, name)
    if rate != catalog.SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate, catalog.SAMPLE_RATE_HZ, quality="HQ")
    notes = (CANCELLED_NOTE if mono.cancelled else "", scaled)
    return Recording(
        np.ascontiguousarray(samples, dtype=np.float32), "; ".join(filter(None, notes))
    )


def _in_range(samples: Samples, name: str) -> tuple[Samples, str]:
    """The samples, and a note where they were integers written as floats: in [-1, 1] then."""
    peak = float(np.abs(samples).max())
    if peak <= LOUDEST_PEAK:
        return samples, ""
    scale = next((scale for scale in FULL_SCALES if peak <= scale), None)
    if scale is None:
        raise AudioError(
            f"{name} holds values up to {peak:.3g}, which is no audio; export it again"
        )
    note = f"its values go up to {peak:.5g} instead of 1; they were divided by {scale:.0f}"
    return samples / np.float32(scale), note
