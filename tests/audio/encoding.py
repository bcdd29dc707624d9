"""Audio files of many kinds, made by the libraries that phones, browsers and desktops make them
with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from hybridlab.audio import Samples

RATE = 16_000


def sine(
    seconds: float = 2.0, *, hz: float = 440.0, rate: int = RATE, peak: float = 0.5
) -> Samples:
    t = np.arange(round(seconds * rate)) / rate
    return np.asarray(peak * np.sin(2 * np.pi * hz * t), dtype=np.float32)


def by_sndfile(samples: Any, *, rate: int = RATE, form: str = "WAV", subtype: str = "") -> bytes:
    """`samples` of shape (n,) or (n, channels)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples), rate, format=form, subtype=subtype or None)
    return buffer.getvalue()


def by_av(
    samples: Samples,
    container: str,
    codec: str,
    *,
    rate: int = RATE,
    tracks: int = 1,
    film: str = "",
    options: dict[str, str] | None = None,
) -> bytes:
    """`samples` of shape (n,) or (n, channels) at `rate`; `film` is the codec of a grey picture
    beside `tracks` tracks of sound, each an octave above the one before."""
    channels = np.atleast_2d(samples.T)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 24: "22.2"}[len(channels)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as output:
        pictures = output.add_stream(film, rate=25) if film else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        streams = [
            output.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
            for _ in range(tracks)
        ]
        for stream in streams:
            stream.bit_rate = 64_000 * len(channels) if rate > RATE else 12_200
            stream.codec_context.open()  # which says how many samples it takes at a time
        if pictures is not None:
            for index in range(round(25 * channels.shape[1] / rate)):
                picture = av.VideoFrame.from_ndarray(np.full((64, 64), 90, np.uint8), format="gray")
                picture = picture.reformat(format="yuv420p")
                picture.pts = index
                output.mux(pictures.encode(picture))
            output.mux(pictures.encode(None))
        for number, stream in enumerate(streams):
            # channel beside channel: PyAV writes no eight planes
            own = np.ascontiguousarray(channels[:, :: 2**number].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(own, format="flt", layout=layout)
            frame.sample_rate = rate
            resampler = av.AudioResampler(stream.format, layout, rate, stream.frame_size)
            for part in (frame, None):
                for ready in resampler.resample(part):
                    output.mux(stream.encode(ready))
            output.mux(stream.encode(None))
    return buffer.getvalue()


def pitch_hz(samples: Samples) -> float:
    """The loudest frequency of samples at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum) * RATE / samples.size)


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
