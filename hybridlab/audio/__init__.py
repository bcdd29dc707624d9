"""Audio: shipped clips, a reader's own files, windows.

Everything inside the lab is float32 mono at 16 kHz in [-1, 1].
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from hybridlab import catalog
from hybridlab.audio.clips import (
    CLIPS_DIR,
    SILENCE_PEAK,
    Clip,
    Clips,
    Question,
    check_clip,
    is_shipped,
    load_clips,
)
from hybridlab.audio.decoding import Recording, printable, read_recording
from hybridlab.audio.mixing import Samples

__all__ = [
    "CLIPS_DIR",
    "SILENCE_PEAK",
    "Clip",
    "Clips",
    "Question",
    "Recording",
    "Samples",
    "check_clip",
    "is_shipped",
    "load_clips",
    "log_mel",
    "of_length",
    "printable",
    "read_audio",
    "windows",
]

#: Of these frames so many in a row are quietest where a long recording is cut: a pause between
#: sentences, not one of their commas.
CUT_FRAME_S, CUT_FRAMES = 0.1, 5
#: A border lies at most so long before the longest possible one, and so long before the end.
CUT_ROOM_S, LEAST_LAST_S = 10.0, 5.0


def read_audio(path: Path) -> Samples:
    """Samples of any audio file, or film with sound, float32 mono at 16 kHz, shape (n,)."""
    return read_recording(path).samples


def log_mel(samples: Samples, *, mel_bins: int = 128) -> Samples:
    """Log-mel features as both models get them, without the padding to 30 s: shape
    (mel_bins, frames of 10 ms), 1 about the loudest and 2 below it the floor."""
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=mel_bins)
    rate = catalog.SAMPLE_RATE_HZ
    found = extract(samples, sampling_rate=rate, padding="do_not_pad", truncation=False)
    return np.asarray(found["input_features"][0], dtype=np.float32)


def of_length(samples: Samples, seconds: float) -> Samples:
    """The same audio again and again until it is so long."""
    return np.resize(samples, round(seconds * catalog.SAMPLE_RATE_HZ))


def windows(samples: Samples, *, window_s: float = catalog.WINDOW_S) -> list[Samples]:
    """Cut into pieces of at most `window_s`, each border in the quietest half second of the last
    10 s that it may lie in.

    Between sentences, and long, as Whisper understands the more of hard speech the more of it a
    window holds; the last piece has some seconds at least, since Whisper makes up a word for a
    short one of mere silence.
    Every Whisper backend gets the same pieces, so that their texts and times can be compared.
    """
    rate = catalog.SAMPLE_RATE_HZ
    longest, reach = round(window_s * rate), round(catalog.WINDOW_REACH_S * rate)
    room, last = round(CUT_ROOM_S * rate), round(LEAST_LAST_S * rate)
    count, pieces = math.ceil(samples.size / (longest - reach)), []
    while samples.size > longest:
        count -= 1
        # what is left must fit into as many windows as `planner.Request` counts
        start = max(longest - room, samples.size - count * (longest - reach))
        end = min(longest, samples.size - last)
        cut = _quietest(samples, min(start, end - reach), end)
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def frame_peaks(samples: Samples) -> Samples:
    """The largest absolute value of each 0.1 s; the last may be shorter."""
    frame = round(CUT_FRAME_S * catalog.SAMPLE_RATE_HZ)
    return np.maximum.reduceat(np.abs(samples), np.arange(0, samples.size, frame))


def quiet_samples(samples: Samples, *, below: float) -> int:
    """How many samples come before the first 0.1 s that is not quiet; all where none is."""
    if samples.size == 0:
        return 0
    loud = np.flatnonzero(frame_peaks(samples) >= below)
    return int(loud[0]) * round(CUT_FRAME_S * catalog.SAMPLE_RATE_HZ) if loud.size else samples.size


def before_pause(samples: Samples, *, below: float, least_s: float) -> int:
    """How many samples come before the first pause that is so long, quiet ones at the beginning
    counted; all where there is none."""
    frame = round(CUT_FRAME_S * catalog.SAMPLE_RATE_HZ)
    loud = np.append(np.flatnonzero(frame_peaks(samples) >= below), samples.size // frame + 1)
    pauses = np.flatnonzero(np.diff(loud) > least_s / CUT_FRAME_S)
    return min(samples.size, int(loud[pauses[0]] + 1) * frame) if pauses.size else samples.size


def _quietest(samples: Samples, start: int, end: int) -> int:
    """Middle of the quietest half second between the two; of equally quiet ones the latest."""
    frame = round(CUT_FRAME_S * catalog.SAMPLE_RATE_HZ)
    count = (end - start) // frame
    frames = samples[start : start + count * frame].reshape(count, frame)
    energy = np.square(frames, dtype=np.float64).sum(axis=1)
    stretches = np.lib.stride_tricks.sliding_window_view(energy, CUT_FRAMES).sum(axis=1)
    index = int(np.flatnonzero(stretches == stretches.min())[-1])
    return start + index * frame + CUT_FRAMES * frame // 2
