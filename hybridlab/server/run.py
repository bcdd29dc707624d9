"""`hybridlab serve`: from the command line to a server that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hybridlab.processes.fork_server import shared_server
from hybridlab.server.settings import Settings
from hybridlab.server.uvicorn_server import check_extra, listen, make_server, start_log
from hybridlab.units import MIB

if TYPE_CHECKING:
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


def run(values: Mapping[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C. Whatever is wrong with the options, the port or the
    installation is raised before anything is loaded, what fails to load as soon as it does."""
    began = time.perf_counter()
    settings = Settings.from_mapping(values)
    check_extra()
    listener = listen(settings)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    # its imports take the longest: they begin now, beside this process' own
    threading.Thread(target=shared_server, name="case-server", daemon=True).start()
    start_log()
    asyncio.run(_serve(settings, listener, began))


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
