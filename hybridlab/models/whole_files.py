"""Whether a file of weights is as long as its own head tells: what a cut download leaves is not."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from pathlib import Path

from hybridlab.models.ctranslate2_folder import WEIGHTS_FILE, ends_early


def is_whole(path: Path) -> bool:
    """Whether a file has the length that its own head tells; of one that tells none, whether it
    holds anything."""
    if path.suffix == ".safetensors":
        return path.stat().st_size == safetensors_bytes(path)
    if path.name == WEIGHTS_FILE:
        return not ends_early(path)
    return path.stat().st_size > 0


def safetensors_bytes(path: Path) -> int | None:
    """The length of this file by its header; None where it has no header."""
    with open(path, "rb") as file:
        head = file.read(8)
        if len(head) < 8:
            return None
        (length,) = struct.unpack("<Q", head)
        if length > path.stat().st_size:
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return None
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    return int(8 + length + max(ends, default=0))


def is_whole_pickle(file: Path, sha256: str) -> bool:
    """torch writes an archive whose directory stands at its end; anything else is summed."""
    if zipfile.is_zipfile(file):
        return True
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == sha256
