"""Clips: audio files with what is known of them, shipped ones or a reader's own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hybridlab import catalog
from hybridlab.audio.decoding import Recording, printable, read_recording
from hybridlab.audio.manifests import Row, rows_of
from hybridlab.audio.mixing import Extent, Samples
from hybridlab.errors import AudioError

log = logging.getLogger("hybridlab.audio")

CLIPS_DIR = Path(__file__).parent / "clips"
#: Below this peak a file holds silence: -80 dB of full scale.
SILENCE_PEAK = 1e-4
#: Lines that the reader is shown of what was left out.
MOST_LINES = 10


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
        return read_recording(self.path).samples


class Clips(list[Clip]):
    """Clips that can be measured with; `left_out` says in one line each what cannot, and why."""

    def __init__(self, clips: Iterable[Clip], left_out: Sequence[str] = ()) -> None:
        super().__init__(clips)
        self.left_out = tuple(left_out)

    def left_out_lines(self) -> list[str]:
        """For the reader: not more than a screen of them."""
        return _first_lines(self.left_out)


def check_clip(
    path: Path, *, name: str = "", max_s: float = catalog.VOXTRAL_MAX_ANSWER_S
) -> Recording:
    """A clip, after refusing what nothing can be measured with: empty, too short, too long, and
    silence, which has no words that could be right or wrong. Errors call it `name`."""
    name = name or str(path)

    def check(extent: Extent) -> None:
        if extent.seconds > max_s:
            raise AudioError(
                f"{name} lasts {extent.seconds / 60:.1f} min or more; Voxtral takes at most "
                f"{max_s / 60:.0f} min: cut it into shorter files"
            )

    found = read_recording(path, name=name, check=check)
    if float(np.abs(found.samples).max()) < SILENCE_PEAK:
        raise AudioError(f"{name} is silent (no sample above -80 dB); remove it")
    return found


def is_shipped(source: str) -> bool:
    """Whether these are the clips that come with the package; '' names them."""
    return not source or Path(source).expanduser().resolve().is_relative_to(CLIPS_DIR.resolve())


def load_clips(source: str = "", *, limit: int | None = None) -> Clips:
    """Clips of an audio file, of a folder with all below it, of a manifest (JSON lines, JSON, CSV,
    TSV) or, with an empty name, the shipped ones.

    A manifest's rows have `path` (relative to the manifest) and may have `id`, `text`, `question`
    and `answer`, or `questions`, a list of objects with `question` and `answer`; `COLUMNS` has
    other names for them. A folder's own manifest is read in its place: `IN_FOLDER`. What cannot be
    used is left out and listed; `AudioError` where that is everything.
    """
    path = Path(source).expanduser() if source else CLIPS_DIR / "manifest.jsonl"
    rows, others = rows_of(path)
    clips, left_out = [], []
    for row, name in zip(rows[:limit], _ids(rows, path), strict=False):
        try:
            clips.append(_clip(row, name))
        except AudioError as error:
            left_out.append(str(error))
    if clips:
        return Clips(clips, [*left_out, *others])
    if len(left_out) == 1:
        raise AudioError(left_out[0])
    raise AudioError(f"no audio of {path} can be used: {'; '.join(_first_lines(left_out, 3))}")


def _first_lines(lines: Sequence[str], most: int = MOST_LINES) -> list[str]:
    more = len(lines) - most
    return [*lines[:most], *([f"and {more} more"] if more > 0 else [])]


def _clip(row: Row, name: str) -> Clip:
    values = row.values
    if row.fault:
        raise AudioError(f"{row.where} {row.fault}")
    if "path" not in values:
        raise AudioError(f"{row.where} is without a path")
    if values.get("offset") not in (None, 0, 0.0, "0", "0.0"):
        raise AudioError(f"{row.where} is a piece of a file (offset); cut the file into pieces")
    recording = check_clip(row.path, name=str(values["path"]))
    if recording.note:
        log.warning("%s: %s", row.path, recording.note)
    return Clip(
        id=name,
        path=row.path.absolute(),
        audio_s=recording.seconds,
        text=str(values["text"]) if "text" in values else None,
        questions=_questions(row),
        note=recording.note,
    )


def _questions(row: Row) -> tuple[Question, ...]:
    asked: Any = row.values.get("questions", [])
    if "question" in row.values:
        asked = [*asked, row.values] if isinstance(asked, list) else asked
    if not isinstance(asked, list) or not all(_is_question(one) for one in asked):
        raise AudioError(
            f"{row.where}: questions is no list of objects with question and answer; mend it"
        )
    return tuple(Question(str(q["question"]), q.get("answer"), q.get("kind", "")) for q in asked)


def _is_question(asked: Any) -> bool:
    return isinstance(asked, Mapping) and bool(asked.get("question"))


def _ids(rows: Sequence[Row], source: Path) -> list[str]:
    """A name for each row: its own, else the shortest that tells it from the others: the file's
    without its suffix, its path without, its path, its path and a number."""
    given = Counter(str(row.values["id"]) for row in rows if "id" in row.values)
    for name, count in given.items():
        if count > 1:
            raise AudioError(f"{source} names the id {name!r} {count} times; ids must differ")
    forms = [_forms(str(row.values.get("path", ""))) for row in rows]
    counts = Counter(
        form
        for row, own in zip(rows, forms, strict=True)
        if "id" not in row.values
        for form in set(own)
    )
    taken, names = set(given), []
    for row, own in zip(rows, forms, strict=True):
        if "id" in row.values:
            names.append(str(row.values["id"]))
            continue
        free = (form for form in own if counts[form] == 1 and form not in taken)
        numbered = (f"{own[-1]}-{n}" for n in range(1, len(rows) + len(taken) + 2))
        name = next(free, "") or next(form for form in numbered if form not in taken)
        taken.add(name)
        names.append(name)
    return names


def _forms(path: str) -> tuple[str, ...]:
    pure = PurePosixPath(printable(path.replace("\\", "/")))
    return pure.stem, str(pure.with_suffix("")) if pure.name else "", str(pure)
