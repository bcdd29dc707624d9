"""Decoders: libsndfile for what it knows, and PyAV, FFmpeg's libraries, for what else there is.

Both give the file's own channels and rate. FFmpeg's mixing down is not used: it clips.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridlab.audio.mixing import BLOCK_FRAMES, Check, Extent, Mixer, Mono, Samples

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container.input import InputContainer

#: What libsndfile says of a stream whose header leaves its length open, and which it cannot read.
UNKNOWN_FRAMES = (1 << 63) - 1
#: FFmpeg's names of what it may take a file for: sound and films. None of them opens other files,
#: as playlists do, and none is a picture or a text.
FORMATS = (
    *("aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dsf"),
    *("dts", "dtshd", "eac3", "flac", "flv", "gsm", "loas", "matroska", "mov", "mp3", "mpc"),
    *("mpc8", "mpeg", "mpegts", "nut", "ogg", "oma", "rm", "sox", "tak", "truehd", "tta", "voc"),
    *("w64", "wav", "wtv", "wv", "xwma"),
)
#: libsndfile's names of what one may follow the other of in a file.
STREAMS = frozenset({"FLAC", "MP3", "OGG"})
REMEDY = "convert it to WAV, FLAC, MP3 or M4A"
#: FFmpeg's names of streams without a header that says how long they are.
HEADLESS = frozenset({"aac", "ac3", "amr", "dts", "eac3", "loas", "mp3", "mpeg", "mpegts"})
#: Less than this is missing where codecs fill their last block, or say so.
CUT_OFF_S = 0.2
#: FFmpeg keeps eight pointers to channels in a frame, and PyAV looks for one that is none.
MOST_PLANES = 7
MICROSECONDS = 1_000_000  # FFmpeg's clock of a container


class UnreadableError(Exception):
    """A decoder does not know the file, or found it damaged; the predicate of a sentence."""


def read_sndfile(source: Path | bytes, check: Check) -> Mono:
    """All frames by libsndfile. `UnreadableError` also where it stops before the end."""
    import soundfile

    mixer = Mixer(check)
    try:
        with _opened(source) as stream, soundfile.SoundFile(_handle(stream), closefd=False) as file:
            if file.frames >= UNKNOWN_FRAMES:
                raise UnreadableError("does not say how long it is")
            check(Extent(file.channels, file.samplerate, file.frames))
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                mixer.add(block, file.samplerate)
            # none: a WAV whose header was written before its samples
            if mixer.n_frames < max(file.frames, 1):
                raise UnreadableError(f"ends after {mixer.n_frames} of {file.frames} frames")
            found, position = mixer.mono(file.samplerate), stream.tell()
            if file.format not in STREAMS:
                return found
            return replace(found, unread_bytes=stream.seek(0, io.SEEK_END) - position)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise UnreadableError(f"cannot be decoded as audio ({error}); {REMEDY}") from error


def read_container(source: Path | bytes, check: Check) -> Mono:
    """All frames of the sound in any file that FFmpeg reads."""
    import av

    mixer = Mixer(check)
    try:
        with _container(source) as container:
            stream = _first_track(container)
            said_s, rate_hz = _said_s(container, stream), stream.codec_context.sample_rate
            if said_s is not None and rate_hz:
                check(Extent(stream.codec_context.channels, rate_hz, round(said_s * rate_hz)))
            packets = _Packets(container.demux(stream))
            rate_hz = 0  # a codec may find another one than its header says
            for block, own_rate_hz in _blocks(packets.frames()):
                if own_rate_hz != (rate_hz := rate_hz or own_rate_hz):
                    raise UnreadableError(f"changes its sample rate on the way; {REMEDY}")
                mixer.add(block, rate_hz)
            if packets.damaged > packets.good:
                raise UnreadableError(f"cannot be decoded as audio (damaged); {REMEDY}")
            if not mixer.n_frames:
                raise UnreadableError("holds no samples; remove it or record it again")
            cut_off = _cut_off(said_s, mixer.n_frames / rate_hz)
            notes = (_tracks(container, stream), packets.note, cut_off)
            return mixer.mono(rate_hz, *filter(None, notes))
    except MemoryError as error:  # which FFmpeg also says of sizes that make no sense
        raise UnreadableError(f"takes too much memory to decode; {REMEDY}") from error
    except av.FFmpegError as error:
        raise UnreadableError(f"cannot be decoded as audio ({error.strerror}); {REMEDY}") from error


class _Packets:
    """Frames of packets, past those that are damaged."""

    def __init__(self, packets: Iterable[Any]) -> None:
        self.good = self.damaged = 0
        self.broken_off = ""
        self._packets = packets

    def frames(self) -> Iterator[AudioFrame]:
        import av

        try:
            for packet in self._packets:
                try:
                    decoded = packet.decode()
                except MemoryError:
                    raise
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                self.good += bool(decoded)
                yield from decoded
        except IndexError:
            pass  # PyAV's at the end, after the last packet, where a track has begun late
        except av.FFmpegError as error:  # of the container, between two packets
            if not self.good or isinstance(error, MemoryError):
                raise
            self.broken_off = f"it cannot be read to its end ({error.strerror})"

    @property
    def note(self) -> str:
        if not self.damaged:
            return self.broken_off
        lost = f"{self.damaged} of its {self.damaged + self.good} packets are damaged and left out"
        return "; ".join(filter(None, (lost, self.broken_off)))


@contextmanager
def _container(source: Path | bytes) -> Iterator[InputContainer]:
    """The open file, never by its name: a name could be a protocol's."""
    import av

    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        options = {"format_whitelist": ",".join(FORMATS)}
        try:
            container = av.open(file, "r", container_options=options, metadata_errors="replace")
        except av.FFmpegError as error:
            if error.errno != errno.EINVAL:
                raise
            why = "no sound or film"  # what FFmpeg took it for is not on the list
            raise UnreadableError(f"cannot be decoded as audio ({why}); {REMEDY}") from None
        with container:
            yield container


def _opened(source: Path | bytes) -> io.BytesIO | io.FileIO:
    return io.BytesIO(source) if isinstance(source, bytes) else io.FileIO(source)


def _handle(stream: io.BytesIO | io.FileIO) -> Any:
    """Never the name, by whose suffix libsndfile guesses, and which soundfile wants in Unicode."""
    return stream if isinstance(stream, io.BytesIO) else stream.fileno()


def _first_track(container: InputContainer) -> Any:
    """The first sound that has a decoder."""
    tracks = container.streams.audio
    if not tracks:
        raise UnreadableError("has no sound in it; name a file that has")
    stream = next((one for one in tracks if one.codec_context is not None), None)
    if stream is None:
        raise UnreadableError(f"has sound in a format that no decoder reads; {REMEDY}")
    return stream


def _blocks(frames: Iterable[AudioFrame]) -> Iterator[tuple[Samples, int]]:
    """Samples in [-1, 1] of shape (n, channels), and their rate. Most codecs give floats, and what
    else there is becomes such, in one plane: of many PyAV reads beyond the last."""
    import av

    known, convert = None, None
    for frame in frames:
        if frame.format.name == "fltp" and frame.layout.nb_channels <= MOST_PLANES:
            yield frame.to_ndarray().astype(np.float32, copy=False).T, frame.sample_rate
            continue
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if convert is None or kind != known:
            known, convert = kind, av.AudioResampler(format="flt")
        for ready in convert.resample(frame):
            samples = ready.to_ndarray().astype(np.float32, copy=False)
            yield samples.reshape(-1, ready.layout.nb_channels), ready.sample_rate


def _tracks(container: InputContainer, stream: Any) -> str:
    tracks = container.streams.audio
    if len(tracks) == 1:
        return ""
    number = 1 + [track.index for track in tracks].index(stream.index)
    return f"it has {len(tracks)} sound tracks; track {number} was read"


def _said_s(container: InputContainer, stream: Any) -> float | None:
    """How long the sound is by its header. FFmpeg guesses for files that have none, and the longest
    track of a film may be another: None for both."""
    if container.format.name in HEADLESS:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / MICROSECONDS
    return None


def _cut_off(said_s: float | None, found_s: float) -> str:
    if said_s is None or said_s - found_s < CUT_OFF_S:
        return ""
    return f"it says that it lasts {said_s:.1f} s, and {found_s:.1f} s were found"
