"""What stands before the routes: the name that was called, the size of a body, how many requests
there are, and one line in the log for each."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridlab.server.errors import (
    ApiError,
    too_large,
    too_many_requests,
    too_slow,
    uploads_full,
)
from hybridlab.server.schemas.transcripts import WARNING_HEADER
from hybridlab.server.settings import Settings, is_loopback

log = logging.getLogger("hybridlab.server")
#: Multipart borders and the other fields of a form.
FORM_BYTES = 1 << 16
#: Bodies that are held at once, together: they stay in memory, audio never touches the disk.
HELD_BYTES = 512 * 10**6
#: A body that is refused by its head is read and dropped by uvicorn if it is no longer than this,
#: so that a client that writes all before it reads reads why; else the connection is closed.
DROPPED_BYTES = 1 << 28
WRONG_HOST = (
    "this server answers to localhost alone; start it with --allowed-host and this name, or with "
    "--host 0.0.0.0 and a token"
)
#: What pages of other origins may read beside the body.
EXPOSED_HEADERS = ("Retry-After", "Server-Timing", WARNING_HEADER, "X-Request-ID")
#: The page runs its own scripts, talks to its own server and is shown in no other site's frame.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class RequestGuardMiddleware:
    """ASGI middleware. A server on loopback answers to its loopback names alone: a page in a
    browser that has its own name resolve to 127.0.0.1 gets nothing."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        held_bytes: int = HELD_BYTES,
        on_done: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self.app = self._shared(app, settings)
        self.settings = settings
        self.free_requests = settings.max_requests
        self.free_bytes = max(held_bytes, 4 * settings.max_upload_bytes)
        self.on_done = on_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = _without_head(scope)
        request = _TrackedRequest(self, scope, receive, send)
        error = self.refusal(scope)
        self.free_requests -= 1
        try:
            app = self.app
            if error is not None:
                app = self._shared(error.response(), self.settings)
            await app(scope, request.receive, request.send)
        finally:
            self.free_requests += 1
            self.free_bytes += request.received_bytes
            request.report(self.on_done)

    @staticmethod
    def _shared(app: ASGIApp, settings: Settings) -> ASGIApp:
        """Open to pages of the origins that --cors-origin names; they may read all that is
        answered, also what is refused."""
        if not settings.cors_origins:
            return app
        return CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED_HEADERS,
        )

    def limit(self, path: str) -> int:
        """Most bytes of a body; base64 takes a third more."""
        n_bytes = self.settings.max_upload_bytes
        return (n_bytes * 4 // 3 if path.endswith("/chat/completions") else n_bytes) + FORM_BYTES

    def refusal(self, scope: Scope) -> ApiError | None:
        """Why a request is refused by its head."""
        headers = Headers(scope=scope)
        if self.settings.loopback:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            allowed = self.settings.allowed_hosts
            if not is_loopback(name) and name not in allowed and "*" not in allowed:
                return ApiError(421, "wrong_host", WRONG_HOST)
        if self.free_requests <= 0 and not scope["path"].startswith("/health"):
            return too_many_requests()
        length = int(headers.get("content-length", 0))
        if length > DROPPED_BYTES:
            return _closing(too_large(self.settings.max_upload_bytes))
        if length > self.limit(scope["path"]):
            return too_large(self.settings.max_upload_bytes)
        return None


def _without_head(scope: Scope) -> Scope:
    """HEAD as GET, of which uvicorn sends no body."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


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
        self._gone = False  # the client, in the midst of its body
        self.received_bytes = 0
        self._began = time.perf_counter()
        self.status = 0

    async def receive(self) -> Message:
        """`ApiError` for a body that is too long or too slow, or has no place beside the others."""
        if self._complete:  # what comes now is that the client went away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            raise _closing(too_slow(self._timeout_s)) from None
        self._complete = not message.get("more_body", False)
        self._gone = message["type"] == "http.disconnect"
        n_bytes = len(message.get("body", b""))
        self.received_bytes += n_bytes
        self._guard.free_bytes -= n_bytes
        if self.received_bytes > self._limit:
            raise _closing(too_large(self._guard.settings.max_upload_bytes))
        if self._guard.free_bytes < 0:
            raise _closing(uploads_full())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            took_ms = 1000 * (time.perf_counter() - self._began)
            headers = MutableHeaders(scope=message)
            headers.append("X-Request-ID", self.id)
            headers.append("Server-Timing", f"total;dur={took_ms:.3f}")
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    def report(self, on_done: Callable[[str, int, float], None]) -> None:
        """One line, without anything of the body: id, what was asked, seconds, status."""
        seconds = time.perf_counter() - self._began
        route = getattr(self.scope.get("route"), "path_format", "other")
        # the client went away before there was an answer, or what it was sent reached nobody
        status = 499 if self._gone else self.status or 499
        level = logging.INFO if route.startswith("/v1/") else logging.DEBUG  # probes come often
        log.log(level, "%s %s %s %.3f s %d", self.id, self.scope["method"], route, seconds, status)
        on_done(route, status, seconds)


def _closing(error: ApiError) -> ApiError:
    """The rest of the body is not waited for."""
    error.headers = {**(error.headers or {}), "Connection": "close"}
    return error
