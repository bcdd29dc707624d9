"""The door of a server and of a gateway: what is installed, the port, the log, how it is closed."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import Any

from hybridlab.errors import UnavailableError
from hybridlab.server.settings import Settings

log = logging.getLogger("hybridlab.server")
#: Between no new connection and none at all: who has just come in may not have spoken yet.
LAST_WORD_S = 0.25
#: How often the door is held once more for who is just coming in.
MOST_KNOCKS = 1000
#: Longest that a connection may neither ask, nor go on reading an answer that is larger than what
#: the kernel holds for it.
SILENCE_S = 30
#: Connections that the kernel keeps until they are accepted; asyncio accepts so many in one go,
#: and where file handles run out it says so as many times.
BACKLOG = 128
#: Modules of the extra `serve` and the packages that they come in.
EXTRA = {
    "fastapi": "fastapi",
    "httpx": "httpx",
    "uvicorn": "uvicorn",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def check_extra() -> None:
    missing = [package for module, package in EXTRA.items() if find_spec(module) is None]
    if missing:
        raise UnavailableError(
            f"hybridlab serve needs {', '.join(missing)}; pip install 'hybridlab[serve]'"
        )


def start_log() -> None:
    """One line for each request, on stderr; the libraries' own words only from a warning on."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for name in ("uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG
        )
        # asyncio leaves a socket that it did not make as it is: a response in two parts would wait
        # 40 ms for the client's acknowledgement
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UnavailableError(
            f"cannot listen on {settings.host} port {settings.port} ({why}); choose another with "
            "--port, or 0 for any that is free"
        ) from None


def most_connections() -> int:
    """Half of the file handles: the rest is for the channels of workers that are started again.
    Requests are fewer, which the gate counts."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return files // 2 if files != resource.RLIM_INFINITY else 1 << 16


def draining_server(gate: Any, settings: Settings, drain: Callable[[], Awaitable[None]]) -> Any:
    """A uvicorn server that drains first: told to stop, it takes in nothing new, answers what it
    has accepted (`drain`), then closes its door. A second signal does not wait."""
    import uvicorn

    class Draining(uvicorn.Server):
        stopping = False

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.stopping:
                super().handle_exit(sig, frame)
                return
            self.stopping = True
            log.info("%s: finishing what was accepted", signal.Signals(sig).name)
            asyncio.get_running_loop().create_task(self._drain())

        async def _drain(self) -> None:
            """The door stays open for a moment, so that a balancer hears 'not ready' and nobody's
            connection is cut before it was told."""
            await asyncio.gather(drain(), asyncio.sleep(settings.drain_s))
            doors = [door for server in self.servers for door in server.sockets]
            for _ in range(MOST_KNOCKS):
                if not _somebody_knocks(doors):
                    break
                await asyncio.sleep(0)  # the loop lets them in
            for server in self.servers:
                server.close()
            await asyncio.sleep(LAST_WORD_S)
            self.should_exit = True

    config = uvicorn.Config(
        gate,
        http=_impatient_protocol(),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=SILENCE_S,
        backlog=BACKLOG,
    )
    return Draining(config)


def _somebody_knocks(doors: Sequence[Any]) -> bool:
    """Whether a connection waits to be accepted: closing its listener would reset it."""
    with selectors.DefaultSelector() as selector:
        for door in doors:
            selector.register(door.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))


def _impatient_protocol() -> type[asyncio.Protocol]:
    """uvicorn's protocol, which by itself waits for ever for the head of a request that comes byte
    by byte, and for a client that does not read its answer: each would hold a connection. And its
    own bound of connections refuses everybody, as long as too many are there."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    most = most_connections()

    class Impatient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
            else:
                self._wait(self._leave_unless_asked)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait(self._leave_unless_asked)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait(self.transport.abort)  # to close it would wait for the reader

        def resume_writing(self) -> None:
            super().resume_writing()
            self._wait(self._leave_unless_asked)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

        def _wait(self, then: Callable[[], None]) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(SILENCE_S, then)

        def _leave_unless_asked(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Impatient
