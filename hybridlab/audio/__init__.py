"""Audio: shipped clips, a reader's own folder or manifest, windows.

Everything inside the lab is float32 mono at 16 kHz in [-1, 1].
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hybridlab import catalog
from hybridlab.audio.decoding import Recording, Samples, read_recording
from hybridlab.errors import AudioError

__all__ = [
    "CLIPS_DIR",
    "Clip",
    "Question",
    "Recording",
    "Samples",
    "check_clip",
    "is_shipped",
    "load_clips",
    "log_mel",
    "of_length",
    "read_audio",
    "windows",
]

log = logging.getLogger("hybridlab.audio")

CLIPS_DIR = Path(__file__).parent / "clips"
#: Below this peak a file holds silence: -80 dB of full scale.
SILENCE_PEAK = 1e-4
#: A long recording is cut where a stretch of this length is quietest.
CUT_FRAME_S = 0.1


@dataclass(frozen=True)
class Question:
    """A question about a clip; `answer` is None where the reader gave none."""

    text: str
    answer: str | None = None
    kind: str = ""


@dataclass(frozen=True)
class Clip:
    """One audio file with what is known of it."""

    id: str
    path: Path
    audio_s: float
    text: str | None = None
    questions: tuple[Question, ...] = field(default=())
    #: What was done to the audio so that it can be heard (`Recording.note`).
    note: str = ""

    def samples(self) -> Samples:
        return read_audio(self.path)


def read_audio(path: Path) -> Samples:
    """Samples of any file that libsndfile reads, float32 mono at 16 kHz, shape (n,)."""
    return read_recording(path).samples


def check_clip(path: Path, *, max_s: float = catalog.VOXTRAL_MAX_ANSWER_S) -> Recording:
    """A clip, after refusing what nothing can be measured with: empty, too short, too long, and
    silence, which has no words that could be right or wrong."""
    found = read_recording(path)
    if float(np.abs(found.samples).max()) < SILENCE_PEAK:
        raise AudioError(f"{path} is silent (no sample above -80 dB); remove it")
    if found.seconds > max_s:
        raise AudioError(
            f"{path} lasts {found.seconds / 60:.1f} min; Voxtral takes at most {max_s / 60:.0f} "
            "min: cut it into shorter files"
        )
    return found


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
    """Cut into even pieces of at most `window_s`, each border at the quietest 0.1 s nearby.

    Even, so that no short piece of mere silence is left at the end: Whisper makes up a word for
    one. Every Whisper backend gets the same pieces, so that their texts and times can be compared.
    """
    longest = round(window_s * catalog.SAMPLE_RATE_HZ)
    if samples.size <= longest:
        return [samples]
    reach = round(catalog.WINDOW_REACH_S * catalog.SAMPLE_RATE_HZ)
    count = math.ceil(samples.size / (longest - reach))
    pieces = []
    for left in range(count, 1, -1):
        even = samples.size // left
        # what is left must still fit, with room to choose the next borders
        least = samples.size - (left - 1) * (longest - reach // 2)
        cut = _quietest(samples, max(even - reach, least), min(even + reach, longest))
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
    """Middle of the quietest frame between the two; of equally quiet ones the most central."""
    frame = round(CUT_FRAME_S * catalog.SAMPLE_RATE_HZ)
    count = (end - start) // frame
    frames = samples[start : start + count * frame].reshape(count, frame)
    energy = np.square(frames, dtype=np.float64).sum(axis=1)
    quietest = np.flatnonzero(energy == energy.min())
    index = quietest[np.argmin(np.abs(quietest - (count - 1) / 2))]
    return int(start + index * frame + frame // 2)


# ------------------------------------------------------------------------------------ collections


def is_shipped(source: str) -> bool:
    """Whether these are the clips that come with the package; '' names them."""
    return not source or Path(source).expanduser().resolve().is_relative_to(CLIPS_DIR.resolve())


def load_clips(source: str = "", *, limit: int | None = None) -> list[Clip]:
    """Clips of a folder, a `.jsonl`/`.csv` manifest, or, with an empty name, the shipped ones.

    A manifest's rows have `path` (relative to the manifest) and may have `id`, `text`, `question`
    and `answer`, or `questions`, a list of objects with `question` and `answer`.
    """
    path = Path(source).expanduser() if source else CLIPS_DIR / "manifest.jsonl"
    if path.is_dir():
        manifests = [path / f"manifest{suffix}" for suffix in (".jsonl", ".csv")]
        path = next((manifest for manifest in manifests if manifest.is_file()), path)
    rows = _folder_rows(path) if path.is_dir() else _manifest_rows(path)
    clips = [_clip(row, path) for row in rows[:limit]]
    names = [clip.id for clip in clips]
    for name in names:
        if names.count(name) > 1:
            raise AudioError(f"{path} names the id {name!r} twice; ids must differ")
    return clips


def _folder_rows(folder: Path) -> list[dict[str, Any]]:
    import soundfile

    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()} | {".mp3", ".oga"}
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        raise AudioError(
            f"{folder} holds no audio that libsndfile reads (WAV, FLAC, OGG, MP3 …) and no "
            "manifest.jsonl"
        )
    return [{"path": str(file.absolute())} for file in files]


def _manifest_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise AudioError(f"audio manifest {str(path)!r} does not exist")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".csv":
        rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    elif path.suffix.lower() in (".jsonl", ".json"):
        lines = enumerate(text.splitlines(), 1)
        rows = [_json_row(path, number, line) for number, line in lines if line.strip()]
    else:
        raise AudioError(f"{path} is neither a folder nor a .jsonl or .csv manifest")
    if not rows:
        raise AudioError(f"{path} lists no clips")
    return rows


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise AudioError(f"{path}, line {number} is not JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise AudioError(f"{path}, line {number} must be an object with a path")
    return row


def _clip(row: Mapping[str, Any], manifest: Path) -> Clip:
    if not row.get("path"):
        raise AudioError(f"{manifest} has a row without a path: {dict(row)}")
    path = manifest.parent / Path(str(row["path"])).expanduser()
    recording = check_clip(path)
    if recording.note:
        log.warning("%s: %s", path, recording.note)
    questions = list(row.get("questions") or [])
    if row.get("question"):
        questions.append({"question": row["question"], "answer": row.get("answer")})
    return Clip(
        id=str(row.get("id") or path.stem),
        path=path,
        audio_s=recording.seconds,
        text=row.get("text") or None,
        questions=tuple(
            Question(q["question"], q.get("answer"), q.get("kind", "")) for q in questions
        ),
        note=recording.note,
    )
