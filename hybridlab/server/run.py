"""`hybridlab serve`: from the command line to a server that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from hybridlab.errors import UnavailableError
from hybridlab.processes.fork_server import shared_server
from hybridlab.server.settings import Settings
from hybridlab.units import MIB

if TYPE_CHECKING:
    import uvicorn

    from hybridlab.server.engine import Engine

log = logging.getLogger("hybridlab.server")
#: What the workers' libraries read when they are loaded.
LIBRARIES = {
    # how long an idle thread of libgomp spins before it sleeps, in rounds of some 20 ns. Its
    # default of 300,000 keeps a worker's threads on their cores for 5 ms after its turn, in which
    # the other model's turn has begun; 20,000 still bridge the gaps within a call
    "GOMP_SPINCOUNT": "20000",
    # glibc's malloc keeps this much for the next request; by itself it gives most of a request's
    # memory back after it, and the pocket Whisper's 3,800 page faults took 7 of its 45 ms. Either
    # of the two fixes the other as well, which malloc would raise to 32 MiB by and by
    "MALLOC_TRIM_THRESHOLD_": str(128 * MIB),
    "MALLOC_MMAP_THRESHOLD_": str(32 * MIB),
}
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
#: What is imported for the processes of a server whose models are all elsewhere: no torch.
DECODING = ("hybridlab.server.audio_decoder",)


def run(values: Mapping[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C. Whatever is wrong with the options, the port or the
    installation is raised before anything is loaded, what fails to load as soon as it does."""
    began = time.perf_counter()
    settings = Settings.from_mapping(values)
    missing = [package for module, package in EXTRA.items() if find_spec(module) is None]
    if missing:
        raise UnavailableError(
            f"hybridlab serve needs {', '.join(missing)}; pip install 'hybridlab[serve]'"
        )
    listener = listen(settings)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    # its imports take the longest: they begin now, beside this process' own
    modules = DECODING if settings.urls.keys() == set(settings.roles) else ()
    threading.Thread(
        target=shared_server, kwargs={"modules": modules}, name="case-server", daemon=True
    ).start()
    start_log()
    asyncio.run(_serve(settings, listener, began))


def start_log() -> None:
    """One line for each request, on stderr; the libraries' own only from a warning on."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    for name in ("uvicorn.error", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)


def listen(settings: Settings) -> socket.socket:
    """`UnavailableError` where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise UnavailableError(
            f"cannot listen on {settings.host} port {settings.port} ({why}); choose another with "
            "--port, or 0 for any that is free"
        ) from None
    # asyncio leaves a socket that it did not make as it is: a response in two parts would wait
    # 40 ms for the client's acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _serve(settings: Settings, listener: socket.socket, began: float) -> None:
    from hybridlab.server.app import create_app
    from hybridlab.server.engine import Engine

    engine = Engine(settings)
    server = make_server(create_app(engine), engine)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    log.info("listening on %s, models are loading", address)
    loading = asyncio.create_task(_load(engine, address, began))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and loading.exception() is not None:
        server.should_exit = True
    await serving  # until all that was accepted is answered
    loading.cancel()
    with suppress(asyncio.CancelledError):
        try:
            await loading
        finally:
            await engine.stop()


async def _load(engine: Engine, address: str, began: float) -> None:
    await engine.start()
    gc.collect()
    gc.freeze()  # what is loaded by now stays: a full collection that walks it takes 20 ms
    seconds = time.perf_counter() - began
    log.info("%s serves %s, ready in %.1f s", address, ", ".join(engine.model_ids()), seconds)


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
