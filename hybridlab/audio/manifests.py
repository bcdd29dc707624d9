"""Lists of audio files as people have them: a folder, a manifest or one file."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.audio.tables import JSONS, TABLES, records_of
from hybridlab.errors import AudioError
from hybridlab.units import counted

#: Hugging Face's AudioFolder has one of these, or one in each of its parts.
METADATA = ("metadata.jsonl", "metadata.csv")
#: In a folder, the first of these that is there says what its files are.
IN_FOLDER = (*(f"manifest{suffix}" for suffix in (*JSONS, *TABLES)), *METADATA)
#: Common Voice has its files in this folder, and its parts in these tables beside it.
CLIPS_FOLDER = "clips"
COMMON_VOICE = ("test.tsv", "validated.tsv", "dev.tsv", "train.tsv")
#: What is taken for audio in a folder; those that turn out not to be are left out by name.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3ga", "3gp", "aac", "ac3", "aif", "aifc", "aiff", "alac", "alaw", "amr", "ape"),
        *("asf", "au", "avi", "awb", "caf", "dts", "eac3", "flac", "flv", "g722", "g729", "gsm"),
        *("m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp2", "mp3", "mp4", "mpc", "mpeg", "mpg"),
        *("mpga", "nist", "oga", "ogg", "ogv", "opus", "pcm", "ra", "raw", "rf64", "rm", "sln"),
        *("snd", "sph", "spx", "tak", "tta", "ulaw", "voc", "vox", "w64", "wav", "wave", "webm"),
        *("wma", "wmv", "wv"),
    )
)


@dataclass(frozen=True)
class Row:
    """What a list says of one file, under the names of `tables.COLUMNS`; blanks are left out."""

    values: Mapping[str, Any]
    #: What its path is relative to.
    folder: Path
    #: Where it stands, for the reader.
    where: str
    #: Why nothing of it can be read; the predicate of a sentence.
    fault: str = ""

    @property
    def path(self) -> Path:
        """The file, which may not be there. Windows' separators, macOS' accents and Common Voice's
        folder are understood."""
        named = str(self.values["path"])
        names = [named, named.replace("\\", "/"), f"{CLIPS_FOLDER}/{named}"]
        names += [unicodedata.normalize("NFC", named), unicodedata.normalize("NFD", named)]
        # a file may be called "~x"
        known = [Path(name).expanduser() if name.startswith("~/") else Path(name) for name in names]
        paths = [self.folder / path for path in known]
        # pathlib's raises for names that are too long for a file
        return next((path for path in paths if os.path.isfile(path)), paths[0])  # noqa: PTH113


def rows_of(source: Path) -> tuple[list[Row], list[str]]:
    """What a folder, a manifest or a single file lists, and what of a folder it does not."""
    if not source.exists():
        raise AudioError(f"audio {str(source)!r} does not exist")
    if source.is_dir():
        return _folder_rows(source)
    if source.suffix.lower() in (*JSONS, *TABLES):
        return _manifest_rows(source), []
    return [Row({"path": source.name}, source.parent, source.name)], []


# ---------------------------------------------------------------------------------------- folders


def _folder_rows(folder: Path) -> tuple[list[Row], list[str]]:
    files = list(_visible_files(folder))
    known = (*IN_FOLDER, *(COMMON_VOICE if (folder / CLIPS_FOLDER).is_dir() else ()))
    manifests = [folder / name for name in known if folder / name in files][:1]
    manifests = manifests or [path for path in files if path.name in METADATA]
    sounds = [path for path in files if path.suffix.lower() in SUFFIXES]
    if manifests:
        rows = [row for manifest in manifests for row in _manifest_rows(manifest)]
        named = {row.path.resolve() for row in rows if "path" in row.values}
        missed = sum(path.resolve() not in named for path in sounds)
        names = " and ".join(str(path.relative_to(folder)) for path in manifests)
        lines = [f"{counted(missed, 'audio file')} not listed in {names}"] if missed else []
        return rows, lines
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not sounds:
        raise AudioError(
            f"{folder} holds no audio (WAV, FLAC, MP3, M4A, WebM …) and no manifest.jsonl"
            + ("; " + "; ".join(_other_files(others)) if others else "")
        )
    rows = [
        Row({"path": name}, folder, name)
        for name in (path.relative_to(folder).as_posix() for path in sounds)
    ]
    return rows, _other_files(others)


def _visible_files(folder: Path) -> Iterator[Path]:
    """All files below, sorted, without hidden ones and macOS' shadows in archives."""

    def refuse(error: OSError) -> None:
        raise AudioError(f"{error.filename} cannot be read ({error.strerror})")

    seen = {folder.resolve()}
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        fresh = []
        for name in sorted(folders):
            target = (Path(root) / name).resolve()
            if not name.startswith(".") and name != "__MACOSX" and target not in seen:
                seen.add(target)  # a link may lead back
                fresh.append(name)
        folders[:] = fresh
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))


def _other_files(paths: Iterable[Path]) -> list[str]:
    """Files that no audio is expected in, in a line or two."""
    tables = [path.name for path in paths if path.suffix.lower() in (*JSONS, *TABLES)]
    rest = Counter(path.suffix or path.name for path in paths if path.name not in tables)
    lines = [f"{name}: a table is read where it is named itself" for name in tables]
    if rest:
        kinds = ", ".join(f"{count} {kind}" for kind, count in rest.most_common())
        lines.append(f"{counted(rest.total(), 'file')} without audio ({kinds})")
    return lines


def _manifest_rows(path: Path) -> list[Row]:
    return [
        Row(one.values, path.parent, f"{path.name}, {one.where}", one.fault)
        for one in records_of(path)
    ]
