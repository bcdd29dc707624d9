"""Folders in CTranslate2's format, as every user of faster-whisper has them: what they hold, read
off the head of each tensor without the library and without the values."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hybridlab.errors import WeightsError

WEIGHTS_FILE = "model.bin"
#: What CTranslate2 calls the architecture, and since when a tensor's head has been as it is here.
SPECIFICATION, OLDEST_VERSION = "WhisperSpec", 4


def is_ctranslate2(folder: Path) -> bool:
    """Whether this folder's weights are CTranslate2's; one with safetensors is in hub format."""
    return (folder / WEIGHTS_FILE).is_file() and not any(folder.glob("*.safetensors"))


def whisper_shape(folder: Path) -> dict[str, int]:
    """Sizes of the Whisper in such a folder, by the words of `source.shape_of`. `WeightsError` for
    a folder that cannot be loaded, or holds another model."""
    if not any(folder.glob("vocabulary.*")) or not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder} has a {WEIGHTS_FILE} without its config.json and vocabulary; copy the whole "
            "folder that ct2-transformers-converter wrote"
        )
    try:
        with open(folder / WEIGHTS_FILE, "rb") as file:
            shapes = {head.name: head.shape for head in tensor_heads(file)}
        return {
            "d_model": shapes["encoder/conv1/weight"][0],
            "encoder layers": _layers(shapes, "encoder"),
            "decoder layers": _layers(shapes, "decoder"),
            "mel bins": shapes["encoder/conv1/weight"][1],
            "vocabulary": shapes["decoder/embeddings/weight"][0],
        }
    except (struct.error, UnicodeDecodeError, LookupError):
        raise WeightsError(
            f"{folder / WEIGHTS_FILE} is not a Whisper that CTranslate2 has written, or it is cut "
            "short; convert or download it again"
        ) from None


def ends_early(path: Path) -> bool:
    """Whether this `model.bin` is shorter than its tensors' heads say, or has none to be read."""
    try:
        with open(path, "rb") as file:
            for _ in tensor_heads(file):
                pass
            return file.tell() > path.stat().st_size
    except (struct.error, UnicodeDecodeError, LookupError):
        return True


def _layers(shapes: dict[str, tuple[int, ...]], part: str) -> int:
    numbered = re.compile(rf"{part}/layer_(\d+)/")
    return len({found[1] for name in shapes if (found := numbered.match(name))})


class TensorHead(NamedTuple):
    """What is written before the values of a tensor."""

    name: str
    shape: tuple[int, ...]
    #: CTranslate2's number of its dtype.
    value_type: int
    n_bytes: int


def tensor_heads(file: BinaryIO) -> Iterator[TensorHead]:
    """Each tensor of a model.bin; until the next is asked for, the file stands at its values.
    `LookupError` where this is no Whisper's, `struct.error` where it is cut short.

    Version, name of the specification, revision and count; then for each tensor its name, rank,
    dimensions, dtype, bytes and values. Strings end with a zero that their length counts.
    """
    (version,) = _numbers(file, "<I")
    if version < OLDEST_VERSION or _string(file) != SPECIFICATION:
        raise LookupError
    _, count = _numbers(file, "<II")
    for _ in range(count):
        name = _string(file)
        (rank,) = _numbers(file, "<B")
        shape = _numbers(file, f"<{rank}I")
        value_type, n_bytes = _numbers(file, "<BI")
        values = file.tell()
        yield TensorHead(name, shape, value_type, n_bytes)
        file.seek(values + n_bytes)


def _numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(file: BinaryIO) -> str:
    (length,) = _numbers(file, "<H")
    return file.read(length)[:-1].decode()
