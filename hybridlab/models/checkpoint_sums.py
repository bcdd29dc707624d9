"""Whether files of a library's cache hold what they should: the hub's cache names each by its sum,
and of openai-whisper's the sum stands in the address."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import (
    is_installed,
    is_openai,
    is_released,
    openai_file,
    repository_of,
    snapshot,
    sum_in,
)
from hybridlab.units import MIB

#: Files below are summed without being asked to: nobody waits for it.
SMALL_BYTES = 16 * MIB


def forget_damaged(spec: ModelSpec) -> list[Path]:
    """Delete those of this spec's files here that do not hold what their own names say, so that
    they are fetched again. The hub's cache names each file by its sum."""
    if not is_released(spec) or not is_installed(spec):
        return []
    repository = repository_of(spec)
    if is_openai(spec):
        paths = [openai_file(repository)]
        damaged = [p for p in paths if p.is_file() and _sha256(p) != sum_in(repository)]
    else:
        folder = snapshot(repository, spec.revision)
        paths = [path for path in folder.iterdir() if path.is_file()] if folder else []
        damaged = [path for path in paths if differs(path)]
    for path in damaged:
        forget(path)
    return damaged


def forget(path: Path) -> None:
    """Delete a file of the hub's cache with what it links to."""
    if path.is_symlink() or path.is_file():
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)


def differs(path: Path) -> bool:
    """Whether a file of the hub's cache does not hold what its blob is named by: a SHA-256, or
    git's SHA-1 of a small file. False where the cache keeps no blobs and so no sums."""
    name = path.resolve().name
    if len(name) == 64:
        return _sha256(path) != name
    if len(name) == 40:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest() != name
    return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
