"""What stands before the routes: the bearer token, the name that was called, the size of a body,
and one line in the log for each request."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from hybridlab.server.refusals import (
    RefusalError,
    crowded,
    too_large,
    too_slow,
    uploads_full,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("hybridlab.server")
#: Multipart borders and the other fields of a form.
FORM_BYTES = 1 << 16
#: Bodies that are held at once, together: they stay in memory, audio never touches the disk.
HELD_BYTES = 512 * 10**6
#: How long, and how much, a client that was refused may go on sending before it is cut off.
LINGER_S = 5.0
#: One that has sent nothing for so long waits for the answer.
PAUSE_S = 0.5
LINGER_BYTES = 1 << 28
#: Files of the page, which holds no secret, by path: a browser opens an address without a token.
PAGE = {"/": "index.html"} | {
    f"/{name}": name
    for name in ("page.css", "page.js", "server.js", "sound.js", "texts.js", "ledger.js")
}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


class Gate:
    """ASGI middleware. Health and the page are open to all; the rest wants the token if one is set.

    A server on loopback answers to its loopback names alone: a page in a browser that has its own
    name resolve to 127.0.0.1 gets nothing.
    """

    def __init__(
        self,
        app: App,
        *,
        token: str,
        loopback: bool,
        max_upload_bytes: int,
        upload_timeout_s: float,
        most_requests: int,
        held_bytes: int = HELD_BYTES,
        on_done: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self.app = app
        self.token = token
        self.loopback = loopback
        self.max_upload_bytes = max_upload_bytes
        self.upload_timeout_s = upload_timeout_s
        self.free_requests = most_requests
        self.free_bytes = max(held_bytes, 4 * max_upload_bytes)
        self.on_done = on_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Watched(self, scope, receive, send)
        self.free_requests -= 1
        scope.setdefault("state", {})["request_id"] = request.id
        try:
            refusal = self.refusal(scope)
            if refusal is not None:
                await request.refuse(refusal)
            else:
                await self.app(scope, request.receive, request.send)
        finally:
            self.free_requests += 1
            self.free_bytes += request.received_bytes
            request.tell(self.on_done)

    def limit(self, path: str) -> int:
        """Most bytes of a body; base64 takes a third more."""
        if path.endswith("/chat/completions"):
            return self.max_upload_bytes * 4 // 3 + FORM_BYTES
        return self.max_upload_bytes + FORM_BYTES

    def refusal(self, scope: Scope) -> RefusalError | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.loopback:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in LOOPBACK_NAMES:
                return RefusalError(421, "wrong_host", "this server answers to localhost alone")
        is_open = scope["path"] in PAGE or scope["path"].startswith("/health/")
        if self.token and not is_open:
            given = headers.get(b"authorization", b"")
            if not secrets.compare_digest(given, b"Bearer " + self.token.encode()):
                return RefusalError(401, "invalid_api_key", "the bearer token is missing or wrong")
        if self.free_requests < 0 and not is_open:
            return crowded()
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limit(scope["path"]):
            return too_large(self.max_upload_bytes)
        return None


class _Watched:
    """One request: counts what comes in and how long it takes, remembers the status that went
    out."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = f"req-{uuid.uuid4().hex[:12]}"
        self.scope = scope
        self._receive = receive
        self._send = send
        self._gate = gate
        self._limit = gate.limit(scope["path"])
        self._deadline_s = asyncio.get_running_loop().time() + gate.upload_timeout_s
        self._whole = self._late = False
        self.received_bytes = 0
        self._over: RefusalError | None = None
        self._closed = False
        self._began = time.perf_counter()
        self.status = 0

    async def receive(self) -> Message:
        if self._whole:  # what comes now is that the client went away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            self._late = True
            raise self._refused(too_slow(self._gate.upload_timeout_s)) from None
        self._whole = not message.get("more_body", False)
        n_bytes = len(message.get("body", b""))
        self.received_bytes += n_bytes
        self._gate.free_bytes -= n_bytes
        if self.received_bytes > self._limit:
            raise self._refused(too_large(self._limit))
        if self._gate.free_bytes < 0:
            raise self._refused(uploads_full())
        return message

    def _refused(self, error: RefusalError) -> RefusalError:
        self._over = error
        return error

    async def send(self, message: Message) -> None:
        if self._over is not None:  # whatever the routes made of it
            error, self._over, self._closed = self._over, None, True
            await self.refuse(error)
        elif not self._closed:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            took_ms = 1000 * (time.perf_counter() - self._began)
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.id.encode()),
                (b"server-timing", f"total;dur={took_ms:.3f}".encode()),
            ]
        await self._send(message)

    async def refuse(self, error: RefusalError) -> None:
        body = json.dumps(error.as_dict()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_s))
        await self._pass_on(
            {"type": "http.response.start", "status": error.status, "headers": headers}
        )
        await self._pass_on({"type": "http.response.body", "body": body, "more_body": True})
        await self._linger()
        await self._pass_on({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        """Let the client finish: one that writes all before it reads would find its connection
        reset, and the answer gone with it (RFC 9112, 9.6). Who waits for a 100 sends nothing, and
        who was late has had the time."""
        if self._whole or self._late or (b"expect", b"100-continue") in self.scope["headers"]:
            return
        lingered = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while lingered < LINGER_BYTES:
                    message = await asyncio.wait_for(self._receive(), PAUSE_S)
                    lingered += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def tell(self, on_done: Callable[[str, int, float], None]) -> None:
        """One line, without anything of the body: id, what was asked, seconds, status."""
        seconds = time.perf_counter() - self._began
        route = getattr(self.scope.get("route"), "path", "other")
        status = self.status or 499  # the client went away before there was an answer
        level = logging.INFO if route.startswith("/v1/") else logging.DEBUG  # probes come often
        log.log(level, "%s %s %s %.3f s %d", self.id, self.scope["method"], route, seconds, status)
        on_done(route, status, seconds)
