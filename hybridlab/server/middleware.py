"""What stands before the routes: the name that was called, the size of a body, how many requests
there are, and one line in the log for each."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from hybridlab.server.errors import (
    ApiError,
    too_large,
    too_many_requests,
    too_slow,
    uploads_full,
)
from hybridlab.server.settings import Settings

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
#: Of a body that is refused by its head so much is read and dropped, so that a client that writes
#: all before it reads reads why.
DROPPED_BYTES = 1 << 28
DROP_S = 5.0
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


class RequestGuardMiddleware:
    """ASGI middleware. A server on loopback answers to its loopback names alone: a page in a
    browser that has its own name resolve to 127.0.0.1 gets nothing."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        held_bytes: int = HELD_BYTES,
        on_done: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.free_requests = settings.max_requests
        self.free_bytes = max(held_bytes, 4 * settings.max_upload_bytes)
        self.on_done = on_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _TrackedRequest(self, scope, receive, send)
        self.free_requests -= 1
        try:
            error = self.refusal(scope)
            if error is not None:
                await request.drop_body()
                await request.refuse(error)
            else:
                await self.app(scope, request.receive, request.send)
        finally:
            self.free_requests += 1
            self.free_bytes += request.received_bytes
            request.report(self.on_done)

    def limit(self, path: str) -> int:
        """Most bytes of a body; base64 takes a third more."""
        n_bytes = self.settings.max_upload_bytes
        return (n_bytes * 4 // 3 if path.endswith("/chat/completions") else n_bytes) + FORM_BYTES

    def refusal(self, scope: Scope) -> ApiError | None:
        """Why a request is refused by its head."""
        headers = _headers(scope)
        if self.settings.loopback:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in LOOPBACK_NAMES:
                return ApiError(421, "wrong_host", "this server answers to localhost alone")
        if self.free_requests < 0 and not scope["path"].startswith("/health/"):
            return too_many_requests()
        if _content_length(headers) > self.limit(scope["path"]):
            return too_large(self.settings.max_upload_bytes)
        return None


class _TrackedRequest:
    """One request: counts what comes in and how long it takes, remembers the status that went
    out."""

    def __init__(
        self, guard: RequestGuardMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.id = f"req-{uuid.uuid4().hex[:12]}"
        self.scope = scope
        self._receive = receive
        self._send = send
        self._guard = guard
        self._limit = guard.limit(scope["path"])
        self._timeout_s = guard.settings.request_timeout_s
        self._deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        self._complete = False
        self.received_bytes = 0
        self._error: ApiError | None = None
        self._refused = False
        self._began = time.perf_counter()
        self.status = 0

    async def receive(self) -> Message:
        if self._complete:  # what comes now is that the client went away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            raise self._fails(too_slow(self._timeout_s)) from None
        self._complete = not message.get("more_body", False)
        n_bytes = len(message.get("body", b""))
        self.received_bytes += n_bytes
        self._guard.free_bytes -= n_bytes
        if self.received_bytes > self._limit:
            raise self._fails(too_large(self._guard.settings.max_upload_bytes))
        if self._guard.free_bytes < 0:
            raise self._fails(uploads_full())
        return message

    def _fails(self, error: ApiError) -> ApiError:
        self._error = error
        return error

    async def send(self, message: Message) -> None:
        if self._error is not None:  # whatever the routes made of it
            error, self._error, self._refused = self._error, None, True
            await self.refuse(error)
        elif not self._refused:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            took_ms = 1000 * (time.perf_counter() - self._began)
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.id.encode()),
                (b"server-timing", f"total;dur={took_ms:.3f}".encode()),
            ]
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        body = json.dumps(error.body()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers(),
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": error.status, "headers": raw}
        await self._pass_on(start)
        await self._pass_on({"type": "http.response.body", "body": body})

    async def drop_body(self) -> None:
        """Read a body of known length before it is refused; a client that waits for a 100 sends
        none."""
        headers = _headers(self.scope)
        length = _content_length(headers)
        if not 0 < length <= DROPPED_BYTES or headers.get("expect", "").lower() == "100-continue":
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DROP_S):
                while (await self._receive()).get("more_body", False):
                    continue

    def report(self, on_done: Callable[[str, int, float], None]) -> None:
        """One line, without anything of the body: id, what was asked, seconds, status."""
        seconds = time.perf_counter() - self._began
        route = getattr(self.scope.get("route"), "path", "other")
        status = self.status or 499  # the client went away before there was an answer
        level = logging.INFO if route.startswith("/v1/") else logging.DEBUG  # probes come often
        log.log(level, "%s %s %s %.3f s %d", self.id, self.scope["method"], route, seconds, status)
        on_done(route, status, seconds)


def _headers(scope: Scope) -> dict[str, str]:
    return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}


def _content_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() else 0
