"""openai-whisper's checkpoints from their addresses: the library's own download has no time limit,
cannot be taken up again, and leaves half a file under the final name."""

from __future__ import annotations

import fcntl
import hashlib
import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

from hybridlab.errors import WeightsError
from hybridlab.models.checkpoint import openai_name, sum_in
from hybridlab.models.hub_errors import explained, status_of
from hybridlab.units import MIB

TIMEOUT_S = 10.0
#: How often in succession a line may break before a byte has come, and the pause after it.
MAX_RETRIES, PAUSE_S = 5, 1.0
_BLOCK = MIB


def content_bytes(url: str) -> int:
    """How large the file at this address is. `WeightsError` where it does not say."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with _open(request) as answer:
            return int(answer.headers["Content-Length"] or 0)
    except (OSError, http.client.HTTPException) as error:
        raise explained(error, _said(url)) from None


def download(url: str, target: Path, on_bytes: Callable[[int], None]) -> None:
    """The file at this address, with the SHA-256 that stands in it, or none. What an earlier try
    has left is taken up. A proxy in the environment is used."""
    partial = target.with_name(f"{target.name}.incomplete")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a second process waits, then finds it done
            if partial.is_file():
                _complete(url, file, on_bytes)
                found = _sum(file)
                if found != sum_in(url):
                    partial.unlink()
                    raise WeightsError(
                        f"{_said(url)} arrived with another SHA-256 ({found[:12]}…) than its "
                        "address says, and was deleted; fetch it again"
                    )
                partial.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise explained(error, _said(url)) from None


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """By the proxy that the environment names now; the module's own opener keeps its first."""
    answer: http.client.HTTPResponse = urllib.request.build_opener().open(
        request, timeout=TIMEOUT_S
    )
    return answer


def _said(url: str) -> str:
    return f"{openai_name(url)} (from {urlparse(url).netloc})"


def _complete(url: str, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
    """All that the file lacks, from where it ends; a line that breaks is taken up again."""
    retries = MAX_RETRIES
    on_bytes(file.seek(0, 2))
    while True:
        before = file.tell()
        try:
            if _append(url, file, on_bytes):
                return
            fault: Exception = http.client.IncompleteRead(b"")
        except (OSError, http.client.HTTPException) as error:
            if status_of(error) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # an earlier try ended between the last byte and the sum
            if status_of(error) is not None or not _is_of_line(error):
                raise
            fault = error
        retries = MAX_RETRIES if file.tell() > before else retries - 1
        if retries < 0:
            raise fault
        time.sleep(PAUSE_S)


def _is_of_line(error: Exception) -> bool:
    """Not of the disk, whose errors have no other class."""
    line = (TimeoutError, ConnectionError, urllib.error.URLError, http.client.HTTPException)
    return isinstance(error, line)


def _append(url: str, file: IO[bytes], on_bytes: Callable[[int], None]) -> bool:
    """What comes until the connection ends, and whether that was all."""
    have = file.seek(0, 2)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _open(request) as answer:
        if have and answer.status != http.HTTPStatus.PARTIAL_CONTENT:  # from the start, then
            file.truncate(0)
            on_bytes(-have)
            have = 0
        whole = have + int(answer.headers["Content-Length"] or 0)
        while block := answer.read1(_BLOCK):
            file.write(block)
            on_bytes(len(block))
    return file.tell() >= whole


def _sum(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
