"""Another server of the lab as the gateway sees it: asked over HTTP, and lost at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx

from hybridlab.server.refusals import RefusalError, not_ready, timed_out

#: A server on the same machine takes a connection at once, or is not there.
CONNECT_S = 2.0
PROBE_S = 2.0


class Upstream:
    """One server behind the gateway. What it refuses is raised as its own `RefusalError`; where it
    is lost, 503 (it cannot be reached), 502 (it broke off, or made no sense) or 504 (too slow)."""

    def __init__(self, name: str, url: str, *, token: str, timeout_s: float) -> None:
        self.name = name
        self.timeout_s = timeout_s
        #: Told of each clocked call: this server's name, the path, seconds.
        self.on_clocked: Callable[[str, str, float], None] = lambda name, path, seconds: None
        self.client = httpx.AsyncClient(
            base_url=url,
            headers={
                "Accept-Encoding": "identity",  # bodies are passed on as they are
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None),  # the gateway counts requests itself
            trust_env=False,  # a proxy of the environment is not for the neighbour's service
        )

    async def close(self) -> None:
        await self.client.aclose()

    async def not_ready(self) -> str:
        """Why it takes no requests now; '' where it does."""
        try:
            answer = await self.client.get("/health/ready", timeout=PROBE_S)
        except httpx.HTTPError as error:
            return f"{self.name} cannot be reached ({type(error).__name__})"
        if answer.status_code == 200:
            return ""
        try:
            return f"{self.name}: {answer.json()['reason']}"
        except (ValueError, KeyError, TypeError):
            return f"{self.name} answered {answer.status_code} to a probe"

    async def object(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """The object that it answers."""
        async with self.asked(method, path, **request) as answer:
            body = b"".join([piece async for piece in self.pieces(answer)])
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._senseless("with something that is no object")
        return found

    @asynccontextmanager
    async def asked(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """An answer whose body has not been read yet; leaving ends the request there too."""
        asking = self.client.build_request(method, path, **request)
        with self._told():
            answer = await self.client.send(asking, stream=True)
        try:
            if answer.status_code >= 400:
                with self._told():
                    raise self._refusal(answer, await answer.aread())
            yield answer
        finally:
            await answer.aclose()

    async def pieces(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it comes; at least one piece."""
        empty = True
        with self._told():
            async for piece in answer.aiter_raw():
                empty = False
                yield piece
        if empty:
            raise self._senseless("without a body")

    @contextmanager
    def clocked(self, path: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.on_clocked(self.name, path, time.perf_counter() - began)

    async def events(self, answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        """What a stream of completions says, event by event, up to its `[DONE]`."""
        with self._told():
            async for line in answer.aiter_lines():
                name, _, data = line.partition(": ")
                if name != "data":
                    continue
                if data == "[DONE]":
                    return
                yield self._said(data)
        raise self._senseless("with a stream that has no end")

    def _said(self, data: str) -> dict[str, Any]:
        """A chunk; an error in its place is raised."""
        try:
            found = json.loads(data)
            if "choices" in found:
                return dict(found)
            error = found["error"]
            failure = RefusalError(502, str(error["code"]), str(error["message"]))
        except (ValueError, KeyError, TypeError):
            raise self._senseless("with an event that makes no sense") from None
        raise failure

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A broken connection as a refusal of one line."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise not_ready(
                f"{self.name} cannot be reached now; try again", code="upstream_lost"
            ) from None
        except httpx.TimeoutException:
            raise timed_out(self.timeout_s) from None
        except httpx.HTTPError as error:
            raise RefusalError(
                502,
                "upstream_lost",
                f"{self.name} was lost over this request ({type(error).__name__}); try again",
                retry_after_s=1,
            ) from None

    def _senseless(self, how: str) -> RefusalError:
        return RefusalError(502, "upstream_fault", f"{self.name} answered {how}; its log says why")

    def _refusal(self, answer: httpx.Response, body: bytes) -> RefusalError:
        """What it said, as it said it; that the gateway itself is refused is no client's fault."""
        status = answer.status_code
        if status in (401, 421):
            return self._senseless(f"{status}: it does not know this gateway")
        try:
            said = dict(json.loads(body)["error"])
            message, code = str(said.pop("message")), str(said.pop("code"))
        except (ValueError, KeyError, TypeError):
            return self._senseless(f"{status} without a reason")
        said.pop("type", None)
        after = answer.headers.get("retry-after", "")
        return RefusalError(
            status,
            code,
            message,
            retry_after_s=int(after) if after.isdigit() else None,
            extra=said,
        )
