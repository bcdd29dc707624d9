"""uvicorn as this server runs it: what must be installed, the port, the log, how it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from hybridlab.errors import UnavailableError
from hybridlab.server.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from hybridlab.server.engine import Engine

log = logging.getLogger("hybridlab.server")
#: Connections that the kernel keeps until they are accepted.
BACKLOG = 128
KEEP_ALIVE_S = 30
#: Between no new connection and none at all: a request may still be on its way.
LAST_REQUEST_S = 0.25
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
    """One line for each request, on stderr; the libraries' own only from a warning on."""
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


def make_server(app: Any, engine: Engine) -> uvicorn.Server:
    """Told to stop, it answers 'stopping' for a moment, so that a balancer sees it, then takes no
    more connections, and ends when all that it accepted is answered. A second signal ends it at
    once."""
    import uvicorn

    settings = engine.settings

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Not as uvicorn's own, which raises the signal again and so ends with its code."""
            self.force_exit = self.should_exit
            self.should_exit = True
            log.info("%s: finishing what was accepted", signal.Signals(sig).name)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            engine.draining = True
            if not self.force_exit:
                await asyncio.sleep(settings.drain_s)
                for server in self.servers:
                    server.close()
                await asyncio.sleep(LAST_REQUEST_S)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # an upload, then the wait and the work; a client that does not read is cut off after it
        timeout_graceful_shutdown=int(2 * settings.request_timeout_s) + 1,
        backlog=BACKLOG,
    )
    return Server(config)
