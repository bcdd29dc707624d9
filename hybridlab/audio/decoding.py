"""Files into samples as the lab has them: one channel, at 16 kHz, in a range that Whisper hears."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hybridlab import catalog
from hybridlab.audio.mixing import Check, Extent, Mono, Samples
from hybridlab.audio.readers import CUT_OFF_S, UnreadableError, read_container, read_sndfile
from hybridlab.errors import AudioError, AudioTooShortError, HybridlabError

#: Peak up to which Whisper hears right. Its features are logarithms, which a factor shifts: with
#: its base size speech is right from 2^-10 to 2^6, wrong from 100 on and noise from 1000 on.
LOUDEST_PEAK = 2.0**6
#: Full scales of integers, by which a float file of a larger peak is divided.
FULL_SCALES = (2.0**7, 2.0**15, 2.0**23, 2.0**31)
#: So much may stand behind the sound: descriptions.
MOST_UNREAD_BYTES = 1024


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


def printable(name: str) -> str:
    """On one line, also where a file's name has more or is no Unicode."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name
    )


def anything(extent: Extent) -> None:
    """The check that lets every file pass."""


def read_recording(source: Path | bytes, *, name: str = "", check: Check = anything) -> Recording:
    """The sound of a file, or of a file's bytes: whatever libsndfile or FFmpeg reads, films too.

    `check` sees what the header says and then how much is decoded so far, and may raise; what it
    raises comes through. `AudioError`, which calls the file `name`, for one that holds no audio.
    """
    name = printable(name or str(source))
    try:
        if isinstance(source, Path) and not source.is_file():
            raise AudioError(f"audio file '{name}' does not exist")
        if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
            raise AudioError(f"{name} is empty (0 bytes); copy or record it again")
        mono = _read(source, check)
    except UnreadableError as error:
        raise AudioError(f"{name} {error}") from None
    except OSError as error:
        raise AudioError(f"{name} cannot be opened ({error.strerror})") from None
    return _prepared(mono, name)


def _read(source: Path | bytes, check: Check) -> Mono:
    try:
        found = read_sndfile(source, check)
    except UnreadableError:
        return read_container(source, check)
    return _continued(found, source, check) if found.unread_bytes > MOST_UNREAD_BYTES else found


def _continued(found: Mono, source: Path | bytes, check: Check) -> Mono:
    """With the streams that follow the first, as of files that were joined, or that are longer than
    their header says: libsndfile stops there, FFmpeg goes on."""
    try:
        whole = read_container(source, check)
    except (UnreadableError, HybridlabError) as error:  # HybridlabError: what `check` refuses
        why = f"it {error}" if isinstance(error, UnreadableError) else str(error)
        note = f"only its first {found.seconds:.1f} s were read, as {why}"
        return replace(found, notes=(*found.notes, note))
    if whole.seconds > found.seconds + CUT_OFF_S:
        return whole
    return replace(found, notes=(*found.notes, *whole.notes))


def _prepared(mono: Mono, name: str) -> Recording:
    """As the lab has all audio. `AudioError` for no samples, too few (`AudioTooShortError`) and
    what are no numbers."""
    import soxr

    samples, rate_hz = mono.samples, mono.rate_hz
    if samples.size < catalog.MIN_AUDIO_S * rate_hz:
        raise AudioTooShortError(
            f"{name} lasts {samples.size / rate_hz:.4g} s, too short for a word; at least "
            f"{catalog.MIN_AUDIO_S:g} s are needed"
        )
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds values that are not numbers; export it again")
    samples, scaled = _in_range(samples, name)
    if rate_hz != catalog.SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, catalog.SAMPLE_RATE_HZ, quality="HQ")
    notes = (*mono.notes, scaled)
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
