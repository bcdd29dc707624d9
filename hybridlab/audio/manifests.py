"""Lists of audio files as people have them: folders, JSON, tables out of Excel and data sets."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.errors import AudioError

log = logging.getLogger("hybridlab.audio")

#: Names of columns in any case, by what they hold; of several the first that is not empty counts.
COLUMNS = {
    "path": ("path", "file", "file_name", "filename", "audio_filepath", "audio", "wav"),
    "id": ("id",),
    "text": ("text", "transcription", "transcript", "sentence", "reference"),
    "question": ("question",),
    "answer": ("answer",),
    "questions": ("questions",),
    "offset": ("offset",),  # of NeMo: where a piece of a longer file begins
}
DELIMITERS = ",;\t|"
TABLES = (".csv", ".tsv")
JSONS = (".jsonl", ".json")
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
    """What a list says of one file, under the names of `COLUMNS`; blanks are left out."""

    values: Mapping[str, Any]
    #: What its path is relative to.
    folder: Path
    #: Where it stands, for the reader.
    where: str

    @property
    def path(self) -> Path:
        """The file, which may not be there. Windows' separators and Common Voice's folder are
        understood."""
        named = str(self.values["path"])
        names = (named, named.replace("\\", "/"), f"{CLIPS_FOLDER}/{named}")
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
        lines = [f"{_counted(missed, 'audio file')} not listed in {names}"] if missed else []
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
        lines.append(f"{_counted(rest.total(), 'file')} without audio ({kinds})")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# -------------------------------------------------------------------------------------- manifests


def _manifest_rows(path: Path) -> list[Row]:
    text = _text(path)
    found = _json_rows(path, text) if path.suffix.lower() in JSONS else _table_rows(path, text)
    rows = [
        Row(values, path.parent, f"{path.name}, {where}")
        for where, values in ((where, _known(values)) for where, values in found)
        if values is not None
    ]
    if not rows:
        raise AudioError(f"{path} lists no clips")
    return rows


def _text(path: Path) -> str:
    """A text file of any of the usual encodings: Unicode, with or without a mark, or Windows'."""
    data = path.read_bytes()
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise AudioError(f"{path} is text of an unknown encoding; save it as UTF-8") from None
    log.warning("%s is not UTF-8 and was read as Windows-1252; save it as UTF-8 if not", path)
    return text


def _encoding(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    some = data[:1000]
    for encoding, zeros in (("utf-16-le", some[1::2]), ("utf-16-be", some[::2])):
        if zeros.count(0) > len(some) / 4:
            return encoding
    return "utf-8-sig"


def _known(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Its values under our names; None for a row of blanks."""
    named = {str(name).strip().lower(): value for name, value in row.items()}
    named = {name: v.strip() if isinstance(v, str) else v for name, v in named.items()}
    if not any(named.values()):
        return None if named else {}
    found = {}
    for name, aliases in COLUMNS.items():
        value = next((named[a] for a in aliases if named.get(a) not in (None, "", [])), None)
        if value is not None:
            found[name] = value
    if isinstance(found.get("path"), Mapping):  # an Audio of Hugging Face's datasets
        found["path"] = found["path"].get("path") or ""
    if not found.get("path"):
        found.pop("path", None)
    return found


def _json_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """An object a line, a list of them, or the list under `data`."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        lines = enumerate(text.split("\n"), 1)  # a text may hold what else ends a line in Unicode
        rows = [(f"line {n}", _parsed(path, n, line)) for n, line in lines if line.strip()]
    else:
        if isinstance(whole, dict):
            whole = whole["data"] if isinstance(whole.get("data"), list) else [whole]
        whole = whole if isinstance(whole, list) else [whole]
        rows = [(f"row {n}", row) for n, row in enumerate(whole, 1)]
    for where, row in rows:
        if not isinstance(row, dict):
            raise AudioError(f"{path}, {where} must be an object with a path")
    return rows


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise AudioError(f"{path}, line {number} is not JSON: {error.msg}") from None


def _table_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    lines = text.splitlines(keepends=True)
    if lines and lines[0].lower().startswith("sep="):  # Excel's own word on the delimiter
        lines = lines[1:]
    if not "".join(lines).strip():
        return []
    delimiter = _delimiter(path, lines[0])
    try:
        rows = _records(lines, delimiter, csv.QUOTE_MINIMAL)
        if delimiter == "\t" and any(
            "\n" in str(value) for _, row in rows for value in row.values()
        ):
            # a quotation mark that opens a text, as Common Voice writes it, and none that closes it
            rows = _records(lines, delimiter, csv.QUOTE_NONE)
    except csv.Error as error:
        raise AudioError(f"{path} is no table ({error}); save it as CSV again") from None
    for where, row in rows:
        if None in row:
            raise AudioError(
                f"{path}, {where} has more cells than the header; put texts that hold "
                f"{delimiter!r} into quotation marks"
            )
    return rows


def _records(lines: list[str], delimiter: str, quoting: Any) -> list[tuple[str, dict[str, Any]]]:
    source = io.StringIO("".join(lines), newline="")
    reader = csv.DictReader(source, delimiter=delimiter, quoting=quoting)
    return [(f"line {reader.line_num}", row) for row in reader]


def _delimiter(path: Path, header: str) -> str:
    """That which cuts the header into cells of which one is a path's."""
    for delimiter in DELIMITERS:
        cells = next(csv.reader([header], delimiter=delimiter))
        if any(cell.strip().lower() in COLUMNS["path"] for cell in cells):
            return delimiter
    raise AudioError(
        f"{path} has no column for the file in its first line, {header.strip()[:80]!r}; call one "
        f"of: {', '.join(COLUMNS['path'])}"
    )
