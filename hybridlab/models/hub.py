"""The hub as a source of files: what a repository holds, and its files into the hub's own cache.

A repository is asked for without a token first, so that a token that has expired is in nobody's
way; the reader's is shown where a repository is closed, or the limit for strangers is reached.
"""

from __future__ import annotations

import http
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hybridlab.errors import WeightsError
from hybridlab.models.checkpoint import is_commit, repository_folder
from hybridlab.models.hub_errors import explained, status_of

HUB_TIMEOUT_S = 10.0
#: A file that a download has left is nobody's once nothing was written to it for so long.
ORPHANED_AFTER_S = 60.0
#: How often a file is asked for again where the hub is out of order, and the first pause.
MAX_RETRIES, PAUSE_S = 3, 1.0
#: What asking again with the reader's token may help against.
TOKEN_HELPS = (401, 403, 429)

#: Called with more bytes that have arrived; fewer than none where a file is begun anew.
OnBytes = Callable[[int], None]
Token = str | bool


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit."""

    repository: str
    commit: str
    files: Mapping[str, int]  #: bytes by name
    sums: Mapping[str, str]  #: SHA-256 by name, of large files
    token: Token  #: what it was asked with; False: nothing


def listing(repository: str, revision: str = "") -> Listing:
    """The repository's files at a revision ('': main), asked once. `WeightsError` in one line for
    whatever keeps it from answering."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"{repository} is not on this machine and HF_HUB_OFFLINE is set; unset it to fetch it, "
            "or use weights 'local', 'random' or 'pocket'"
        )
    refused: Exception | None = None
    for token in _tokens():
        try:
            info = HfApi(token=token).model_info(
                repository, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S
            )
        except Exception as error:  # whatever the client raises, it is told in one line
            if status_of(error) not in TOKEN_HELPS:
                raise explained(error, repository, revision=revision) from None
            if refused is None or status_of(error) != 401:  # a token that has expired tells less
                refused = error
            continue
        if info.gated and token is False:
            continue  # its list is open to everybody, its files are not
        held = info.siblings or []
        sizes = {one.rfilename: one.size or 0 for one in held}
        sums = {one.rfilename: one.lfs.sha256 for one in held if one.lfs is not None}
        return Listing(repository, str(info.sha), sizes, sums, token)
    if refused is not None:
        raise explained(refused, repository, revision=revision, has_token=_reader_token() != "")
    raise WeightsError.no_token(repository)


def _tokens() -> Iterator[Token]:
    yield False
    if token := _reader_token():
        yield token


def _reader_token() -> str:
    """Of the environment, the login's file, or Colab's secret; '' without one."""
    from huggingface_hub import get_token

    return get_token() or ""


def download(
    listed: Listing,
    names: Collection[str],
    revision: str,
    on_bytes: OnBytes,
    on_wait: Callable[[str], None],
) -> None:
    """These files of a repository into the hub's cache; `on_wait` is told why it waits.
    `WeightsError` for whatever keeps one from coming.

    A line that breaks is taken up again where it broke, but only by the process that it broke in.
    So one file at a time: those that are whole are kept, whatever ends this process. Not by the
    library's own way to fetch several, which lists the repository once more without a time limit.
    """
    forget_orphans(listed.repository)
    try:
        with _warnings_to(on_wait):
            for name in sorted(names):
                _download(listed, name, on_bytes, on_wait)
        _remember(listed.repository, revision, listed.commit)
    except Exception as error:  # as above
        has_token = listed.token is not False
        raise explained(error, listed.repository, revision=revision, has_token=has_token) from None


def _download(
    listed: Listing, name: str, on_bytes: OnBytes, on_wait: Callable[[str], None]
) -> None:
    """The library takes up lines that break, and waits where it is asked to; a file server that is
    out of order for a moment it gives up."""
    from huggingface_hub import hf_hub_download

    came = 0

    def count(n_bytes: int) -> None:
        nonlocal came
        came += n_bytes
        on_bytes(n_bytes)

    for retry in range(MAX_RETRIES + 1):
        try:
            hf_hub_download(
                listed.repository,
                name,
                revision=listed.commit,
                token=listed.token,
                etag_timeout=HUB_TIMEOUT_S,
                tqdm_class=_counting(count),
            )
            return
        except Exception as error:
            status = status_of(error) or 0
            if status < http.HTTPStatus.INTERNAL_SERVER_ERROR or retry == MAX_RETRIES:
                raise
            count(-came)  # it begins anew
            on_wait(f"status {status} for {name}, tried again")
            time.sleep(PAUSE_S * 2**retry)


def _counting(on_bytes: OnBytes) -> Any:
    """A progress bar that draws nothing and passes on the bytes that are written."""
    from tqdm.auto import tqdm

    class Counting(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if n:
                on_bytes(int(n))

        def update_transfer(self, n: float | None = 1) -> None:
            """What has arrived and is not written yet; without it the library makes a second bar
            for that."""

    return Counting


@contextmanager
def _warnings_to(on_wait: Callable[[str], None]) -> Iterator[None]:
    """The library's own warnings of what it tries again, or waits for, as words of the progress and
    not as lines of their own; what it gives up is raised."""
    from huggingface_hub.utils.logging import get_logger

    class Relay(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                on_wait(record.getMessage().splitlines()[-1])  # before it: the address

    library = get_logger("huggingface_hub")
    before, library.handlers = library.handlers, [Relay()]
    try:
        yield
    finally:
        library.handlers = before


def _remember(repository: str, revision: str, commit: str) -> None:
    """Which commit a branch or tag stands for, where the hub's libraries look it up; a download of
    a commit does not say."""
    if is_commit(revision):
        return
    ref = repository_folder(repository) / "refs" / (revision or "main")
    ref.parent.mkdir(parents=True, exist_ok=True)
    temporary = ref.with_name(f"{ref.name}.{os.getpid()}")
    temporary.write_text(commit, encoding="ascii")
    temporary.replace(ref)


def forget_orphans(repository: str) -> int:
    """Delete what downloads that were killed have left in this repository's cache, which nothing
    ever takes up again; the bytes that this gave back. One that somebody writes is left alone: its
    lock is held or, where it has none, it grows."""
    from filelock import FileLock, Timeout

    folder, freed = repository_folder(repository), 0
    locks = folder.parent / ".locks" / folder.name
    for orphan in (folder / "blobs").glob("*.incomplete"):
        lock = locks / f"{orphan.name.partition('.')[0]}.lock"
        try:
            seen = orphan.stat()
            if lock.is_file():
                with FileLock(lock, timeout=0):
                    orphan.unlink()
            elif time.time() - seen.st_mtime < ORPHANED_AFTER_S:
                continue
            else:
                orphan.unlink()
        except (Timeout, FileNotFoundError):
            continue
        except OSError as error:
            raise explained(error, repository) from None
        freed += seen.st_size
    return freed
