"""What went wrong with a download, in one line that names the reason and what helps."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from hybridlab.errors import WeightsError

OTHERWISE = "or use weights 'local', 'random' or 'pocket'"
_CLOSED = "the connection was closed without an answer, as a captive portal does"
#: Of errors of the HTTP client, by the name of their class, which has moved between packages.
_LINE_FAULTS = {
    "ConnectionRefusedError": "the connection was refused",
    "ConnectTimeout": "no answer in time: is something between here and it that drops packets?",
    "TimeoutException": "no answer in time: is something between here and it that drops packets?",
    "ProxyError": "the proxy refused; look at HTTPS_PROXY",
    "RemoteDisconnected": _CLOSED,
    "RemoteProtocolError": "the line broke",
    "ConnectionResetError": "the line broke",
    "ReadError": "the line broke",
    "IncompleteRead": "the line broke",
    "ConnectError": "no connection",
}
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
#: What a source says by a status.
_ANSWERS = {
    407: "wants a name and a password for the proxy (407); put them into HTTPS_PROXY",
    401: (
        "is not open to everybody, and the hub does not know this token (401): it has expired or "
        "is mistyped; set HF_TOKEN to a new one"
    ),
    403: "refuses this token (403); set HF_TOKEN to one that may read",
    404: "is not there (404): it was removed or renamed, or is private",
}
_REFUSED = "refuses to answer (403), though it is open: is a proxy or a firewall in between?"
#: By what errors of many classes say.
_BY_WORDS = {
    "Consistency check failed": "the line broke, and a file ended early",
    "without sending a response": _CLOSED,
}
_CERTIFICATE = "is a proxy in between? SSL_CERT_FILE names the file of its certificate"


def explained(
    error: BaseException, source: str, *, revision: str = "", has_token: bool = False
) -> WeightsError:
    """This fault of a download from `source`, a repository or an address."""
    chain = list(chain_of(error))
    status = status_of(error)
    if status is not None:
        return _answered(status, chain, source, revision=revision, has_token=has_token)
    for one in chain:
        if isinstance(one, OSError) and (line := _of_disk(one)):
            return WeightsError(f"{source} cannot be fetched: {line}")
    proxies = ", ".join(name for name in _PROXIES if os.getenv(name))
    by = f", by way of the proxy in {proxies}" if proxies else ""
    return WeightsError(
        f"{source} cannot be fetched: {_of_line(chain)}{by}; run `hybridlab fetch PRESET` once "
        f"while online, {OTHERWISE}"
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error; None where there was no answer."""
    for one in chain_of(error):
        response = getattr(one, "response", None)
        status = getattr(response, "status_code", None) or getattr(one, "code", None)
        if isinstance(status, int):
            return status
    return None


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _answered(
    status: int, chain: list[BaseException], source: str, *, revision: str, has_token: bool
) -> WeightsError:
    names = {type(one).__name__ for one in chain}
    if "RevisionNotFoundError" in names:
        return WeightsError(
            f"{source} has no revision {revision or 'main'} (404); name a commit, branch or tag "
            "that its page lists"
        )
    is_gated = "GatedRepoError" in names
    if not has_token and (status == 401 or (status == 403 and is_gated)):
        return WeightsError.no_token(source)
    if status == 429:
        return WeightsError(f"{source}: too many requests (429); {_wait(chain, has_token)}")
    if status == 404 and names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        said = "does not give a file that it lists (404); try again later"
    elif status == 403 and not has_token:
        said = _REFUSED
    elif status == 403 and is_gated:
        said = "is closed to the account of this token (403); accept its terms on its page"
    else:
        said = _ANSWERS.get(status, f"answers with status {status}; try again later, {OTHERWISE}")
    return WeightsError(f"{source} {said}")


def _wait(chain: list[BaseException], has_token: bool) -> str:
    wait_s = _retry_after_s(chain)
    when = "in a few minutes" if wait_s is None else f"in {wait_s} s, as it asks"
    lifts = "" if has_token else "; a token lifts the limit for strangers: set HF_TOKEN"
    return f"try again {when}{lifts}"


def _retry_after_s(chain: list[BaseException]) -> int | None:
    """Seconds that the hub itself asks to wait."""
    for one in chain:
        headers = getattr(getattr(one, "response", one), "headers", None) or {}
        own = str(headers.get("retry-after", ""))
        limit = re.search(r"\bt=(\d+)", str(headers.get("ratelimit", "")))
        if own.isdecimal() or limit:
            return int(own if own.isdecimal() else limit[1])  # type: ignore[index]
    return None


def _of_disk(error: OSError) -> str:
    """'' for what is not the disk's fault."""
    from huggingface_hub import constants

    at = Path(error.filename or constants.HF_HUB_CACHE)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {at} is full; free some room, or set HF_HOME to a folder on a larger one"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return f"{at} cannot be written; set HF_HOME to a folder that can"
    return ""


def _of_line(chain: list[BaseException]) -> str:
    for one in chain:
        if isinstance(one, socket.gaierror):
            return f"its name cannot be resolved ({one.strerror}): is this machine online?"
        if isinstance(one, ssl.SSLError):
            return f"the connection is not trusted ({one.reason}): {_CERTIFICATE}"
    texts = " ".join(map(str, chain))
    if said := next((said for words, said in _BY_WORDS.items() if words in texts), ""):
        return said
    names = [kind.__name__ for one in chain for kind in type(one).__mro__]
    for name, said in _LINE_FAULTS.items():
        if name in names:
            return f"{said} ({type(chain[0]).__name__})"
    said = " ".join(str(chain[0]).split())
    return f"{type(chain[0]).__name__}: {said[:200]}"
