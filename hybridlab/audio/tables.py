"""Text files that list audio, as Excel, programs and data sets write them: JSON and tables in any
usual encoding, with any usual delimiter and names of columns."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridlab.errors import AudioError

log = logging.getLogger("hybridlab.audio")

#: Names of columns in any case, by what they hold; of several the first that is not empty counts.
COLUMNS = {
    "path": (
        *("path", "file", "file_name", "filename", "file_path", "audio_filepath", "audio_file"),
        *("audio_path", "audio", "wav", "wav_filename"),
    ),
    "id": ("id",),
    "text": ("text", "transcription", "transcript", "sentence", "reference", "normalized_text"),
    "question": ("question",),
    "answer": ("answer",),
    "questions": ("questions",),
    "offset": ("offset",),  # of NeMo: where a piece of a longer file begins
}
DELIMITERS = ",;\t|"
TABLES = (".csv", ".tsv")
JSONS = (".jsonl", ".json")


@dataclass(frozen=True)
class Record:
    """What a row says, under the names of `COLUMNS`; blanks are left out."""

    where: str
    values: Mapping[str, Any]
    #: Why nothing of it can be read; the predicate of a sentence.
    fault: str = ""


def records_of(path: Path) -> list[Record]:
    """The rows of a file that are not blank. One that cannot be read among others has its fault;
    `AudioError` where the file is none of the known kinds."""
    text = _text(path)
    if path.suffix.lower() in JSONS:
        found = _json_records(path, text)
    else:
        found = _table_records(path, text)
    records = [record for record in found if record is not None]
    if not records:
        raise AudioError(f"{path} lists no clips")
    return records


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


def _record(where: str, row: Mapping[str, Any]) -> Record | None:
    """Its values under our names; None for a row of blanks."""
    named = {str(name).strip().lower(): value for name, value in row.items()}
    named = {name: v.strip() if isinstance(v, str) else v for name, v in named.items()}
    if not any(named.values()):
        return None if named else Record(where, {})
    found = {}
    for name, aliases in COLUMNS.items():
        value = next((named[a] for a in aliases if named.get(a) not in (None, "", [])), None)
        if value is not None:
            found[name] = value
    if isinstance(found.get("path"), Mapping):  # an Audio of Hugging Face's datasets
        found["path"] = found["path"].get("path") or ""
    if not found.get("path"):
        found.pop("path", None)
    return Record(where, found)


# ------------------------------------------------------------------------------------------- JSON


def _json_records(path: Path, text: str) -> Iterator[Record | None]:
    """An object a line, a list of objects or of paths, or such a list inside an object."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        yield from _line_records(path, text)
        return
    except RecursionError:
        raise AudioError(f"{path} is nested too deep for a list of files") from None
    for number, row in enumerate(_listed(whole), 1):
        yield _json_record(path, f"row {number}", row)


def _listed(whole: Any) -> list[Any]:
    if isinstance(whole, dict) and not any(str(k).lower() in COLUMNS["path"] for k in whole):
        lists = [value for value in whole.values() if isinstance(value, list) and value]
        return lists[0] if len(lists) == 1 else [whole]
    return whole if isinstance(whole, list) else [whole]


def _line_records(path: Path, text: str) -> Iterator[Record | None]:
    good = False
    for number, line in enumerate(text.split("\n"), 1):  # other ends of lines may be in a text
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not good:  # it is no JSON lines at all
                raise AudioError(f"{path}, line {number} is not JSON: {error.msg}") from None
            yield Record(f"line {number}", {}, f"is not JSON: {error.msg}")
            continue
        good = True
        yield _json_record(path, f"line {number}", row)


def _json_record(path: Path, where: str, row: Any) -> Record | None:
    if isinstance(row, str):
        row = {"path": row}
    if isinstance(row, dict):
        return _record(where, row)
    return Record(where, {}, "must be an object with a path")


# ----------------------------------------------------------------------------------------- tables


def _table_records(path: Path, text: str) -> Iterator[Record | None]:
    lines = text.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if not _is_skipped(n, line)), len(lines))
    if first == len(lines):
        return
    delimiter = _delimiter(path, lines[first])
    body = "".join(lines[first:])
    try:
        rows = _rows(body, delimiter, csv.QUOTE_MINIMAL)
        if delimiter == "\t" and any("\n" in str(v) for _, row in rows for v in row.values()):
            # a quotation mark that opens a text, as Common Voice writes it, and none that closes it
            rows = _rows(body, delimiter, csv.QUOTE_NONE)
        else:
            _check_quotes(path, body, delimiter, first)
    except csv.Error as error:
        raise AudioError(f"{path} is no table ({error}); save it as CSV again") from None
    for number, row in rows:
        where = f"line {number + first}"
        if None in row:
            fault = "has more cells than the header; put texts that hold "
            yield Record(where, {}, f"{fault}{delimiter!r} into quotation marks")
        else:
            yield _record(where, row)


def _is_skipped(number: int, line: str) -> bool:
    """Blank, or Excel's own word on the delimiter."""
    return not line.strip() or (number == 0 and line.lower().startswith("sep="))


def _rows(body: str, delimiter: str, quoting: Any) -> list[tuple[int, dict[str, Any]]]:
    """Each with the number of its last line."""
    source = io.StringIO(body, newline="")
    reader = csv.DictReader(source, delimiter=delimiter, quoting=quoting)
    return [(reader.line_num, row) for row in reader]


def _check_quotes(path: Path, body: str, delimiter: str, skipped: int) -> None:
    """`AudioError` where a text opens a quotation mark that nothing closes: all that follows would
    be a part of it."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    began = 1
    try:
        for _ in reader:
            began = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise AudioError(
                f"{path}, line {began + skipped} opens a quotation mark that nothing closes; close "
                "it, or double it where it is a part of the text"
            ) from None


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
