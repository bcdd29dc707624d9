"""A hub on loopback: the routes that huggingface_hub calls, large files by a redirect to another
host name, and faults on request. Every request is kept."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

LARGE = (".safetensors", ".bin", ".msgpack", ".h5", ".pt")
GOOD_TOKEN = "hf_good"


@dataclass
class Fault:
    """What is done to requests whose 'METHOD path' matches: as often as `times` says, after `skip`
    were left alone."""

    match: str
    status: int = 0
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    #: Bytes of a file after which the line is cut; -1: it is not.
    cut_after: int = -1
    corrupt: bool = False
    drop: bool = False
    #: Before anything is answered.
    delay_s: float = 0.0
    times: int = 10**9
    skip: int = 0


class Hub(ThreadingHTTPServer):
    """Repositories in folders `root/OWNER/NAME`; what it does may be changed at work."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Open, without faults, asked by nobody yet."""
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.ranges: list[str] = []
        self.faults: list[Fault] = []
        self.commits: dict[str, str] = {}
        self.gated: set[str] = set()
        #: Bytes by name of repositories that are listed so, whatever their folders hold.
        self.listed: dict[str, dict[str, int]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository: str) -> str:
        return self.commits.get(repository, hashlib.sha1(repository.encode()).hexdigest())

    def move(self, repository: str) -> str:
        """Main is at another commit from now on."""
        self.commits[repository] = hashlib.sha1(self.commit(repository).encode()).hexdigest()
        return self.commits[repository]

    def bodies(self) -> list[str]:
        """Names of the files that were sent, in their order."""
        gets = [line.split()[1] for line in self.requests if line.startswith("GET ")]
        return [path.rsplit("/", 1)[-1] for path in gets if not path.startswith("/api/")]

    def handle_error(self, *_: object) -> None:
        """A client that goes away is nobody's fault here."""


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    hub = Hub(root)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub
    fault: Fault | None

    def log_message(self, *_: object) -> None:
        """The hub keeps its own."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    @property
    def _token(self) -> str:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ")

    def _handle(self) -> None:
        line = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append(line)
            self.server.tokens.append(self._token)
            self.server.ranges.append(self.headers.get("range") or "")
            self.fault = self._next_fault(line)
        if self.fault is not None:
            time.sleep(self.fault.delay_s)
            if self.fault.drop:
                self.close_connection = True
                return
            if self.fault.status:
                self._error(self.fault.status, self.fault.code, self.fault.headers)
                return
        self._route(unquote(urlparse(self.path).path))

    def _next_fault(self, line: str) -> Fault | None:
        for fault in self.server.faults:
            if re.search(fault.match, line) and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _route(self, path: str) -> None:
        if path.startswith("/cdn/"):
            self._send(self.server.root / path.removeprefix("/cdn/"), {})
        elif found := re.fullmatch(r"/openai/[0-9a-f]{64}/([^/]+)", path):
            self._send(self.server.root / "openai-whisper" / found[1], {})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if self._opens(found[1], found[2] or "main", describes=True):
                self._describe(found[1])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if self._opens(found[1], found[2]):
                self._json([self._entry(file) for file in self._files(found[1])])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._opens(found[1], found[2]):
                self._resolve(found[1], found[3])
        else:
            self._error(404, "")

    def _opens(self, repository: str, revision: str, *, describes: bool = False) -> bool:
        """Whether this request may see it; answered otherwise."""
        token = self._token
        if token and token != GOOD_TOKEN:
            self._error(401, "")
        elif repository in self.server.listed and describes:
            return True
        elif not (self.server.root / repository).is_dir():
            self._error(404 if token else 401, "RepoNotFound")
        elif repository in self.server.gated and not describes and token != GOOD_TOKEN:
            self._error(401, "GatedRepo")
        elif revision not in ("main", self.server.commit(repository)):
            self._error(404, "RevisionNotFound")
        else:
            return True
        return False

    def _files(self, repository: str) -> list[Path]:
        return sorted(path for path in (self.server.root / repository).iterdir() if path.is_file())

    def _describe(self, repository: str) -> None:
        if listed := self.server.listed.get(repository):
            entries = [{"path": name, "size": n, "oid": "0" * 40} for name, n in listed.items()]
        else:
            entries = [self._entry(file) for file in self._files(repository)]
        siblings = [
            {"rfilename": one["path"], "size": one["size"], "blobId": one["oid"]}
            | ({"lfs": {**one["lfs"], "sha256": one["lfs"]["oid"]}} if "lfs" in one else {})
            for one in entries
        ]
        gated = "auto" if repository in self.server.gated else False
        about = {"id": repository, "sha": self.server.commit(repository), "gated": gated}
        self._json({**about, "private": False, "tags": [], "siblings": siblings})

    def _entry(self, file: Path) -> dict[str, Any]:
        size = file.stat().st_size
        entry = {"type": "file", "oid": sum_of(file, large=False), "size": size, "path": file.name}
        if is_large(file):
            entry["lfs"] = {"oid": sum_of(file), "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, repository: str, name: str) -> None:
        file = self.server.root / repository / name
        headers = {"X-Repo-Commit": self.server.commit(repository)}
        if not file.is_file():
            self._error(404, "EntryNotFound", headers)
            return
        headers["ETag"] = f'"{sum_of(file)}"'
        if not is_large(file):
            self._send(file, headers)
            return
        size = file.stat().st_size
        headers |= {"X-Linked-Size": str(size), "X-Linked-Etag": headers["ETag"]}
        place = f"http://localhost:{self.server.server_port}/cdn/{repository}/{name}"
        self._answer(302, b"", {**headers, "Location": place})

    def _send(self, file: Path, headers: dict[str, str]) -> None:
        content, fault = file.read_bytes(), self.fault or Fault("")
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        start = int(found[1]) if found else 0
        if start and start >= len(content):
            self._error(416, "")
            return
        body = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault.corrupt:
            body = bytes(byte ^ 0x5A for byte in body)
        cut = fault.cut_after if fault.cut_after >= 0 else None
        self._answer(206 if start else 200, body, headers, cut=cut)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code} if code else {}
        self._answer(status, b'{"error": "no"}', {**named, **(headers or {})})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], *, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        if cut is not None and cut < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def is_large(file: Path) -> bool:
    return file.suffix in LARGE or file.name == "tekken.json"


def sum_of(file: Path, *, large: bool | None = None) -> str:
    """As the hub names a blob: a SHA-256 of a large file, git's SHA-1 of another."""
    content = file.read_bytes()
    if is_large(file) if large is None else large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
