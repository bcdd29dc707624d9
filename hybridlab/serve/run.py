"""`hybridlab serve`: from the command line to a server that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING, Any

from hybridlab.errors import HybridlabError, UnavailableError
from hybridlab.isolate import shared_server
from hybridlab.serve.settings import Settings

if TYPE_CHECKING:
    from hybridlab.serve.service import Service

log = logging.getLogger("hybridlab.serve")
#: How long an idle thread of libgomp spins before it sleeps, in rounds of some 20 ns. Its default
#: of 300,000 keeps a worker's threads on their cores for 5 ms after its turn, in which the other
#: tenant's turn has begun; 20,000 still bridge the gaps within a call.
SPIN = {"GOMP_SPINCOUNT": "20000"}
EXTRA = {
    "fastapi": "fastapi",
    "httpx": "httpx",
    "uvicorn": "uvicorn",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
}


def run(values: Mapping[str, Any]) -> None:
    """Serve until SIGTERM or Ctrl-C. Whatever is wrong with the options, the port or the
    installation is raised before anything is loaded, what fails to load as soon as it does."""
    began = time.perf_counter()
    settings = Settings.from_mapping(values)
    _check_extra()
    listener = _listen(settings)
    for name, value in SPIN.items():  # read by the workers' libraries when they are loaded
        os.environ.setdefault(name, value)
    # its imports take the longest: they begin now, beside this process' own
    threading.Thread(target=shared_server, name="case-server", daemon=True).start()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    failure = asyncio.run(_serve(settings, listener, began))
    if failure is not None:
        raise failure


def _check_extra() -> None:
    missing = [package for module, package in EXTRA.items() if find_spec(module) is None]
    if missing:
        raise UnavailableError(
            f"hybridlab serve needs {', '.join(missing)}; pip install 'hybridlab[serve]'"
        )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=512)
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


async def _serve(
    settings: Settings, listener: socket.socket, began: float
) -> HybridlabError | None:
    """What failed to load, if anything did."""
    import uvicorn

    from hybridlab.serve.app import make_app
    from hybridlab.serve.security import Gate
    from hybridlab.serve.service import Service

    service = Service(settings)
    gate = Gate(
        make_app(service),
        token=settings.token,
        loopback=settings.loopback,
        max_upload_bytes=settings.max_upload_bytes,
        on_done=service.metrics.request_done,
    )
    config = uvicorn.Config(
        gate,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        limit_concurrency=4 * settings.queue + 64,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _server(uvicorn, config, service, settings.drain_s)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    log.info("listening on %s, models are loading", address)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    failure = await _load(service, address, began)
    if failure is not None:
        server.should_exit = True
    await serving
    await service.stop()
    return failure


async def _load(service: Service, address: str, began: float) -> HybridlabError | None:
    try:
        await service.start()
    except HybridlabError as error:
        return error
    seconds = time.perf_counter() - began
    log.info("%s serves %s, ready in %.1f s", address, ", ".join(service.model_ids()), seconds)
    return None


def _server(uvicorn: Any, config: Any, service: Service, drain_s: float) -> Any:
    """A uvicorn server that drains first: told to stop, it takes in nothing new, answers what it
    has accepted, then closes its door. A second signal does not wait."""

    class Draining(uvicorn.Server):  # type: ignore[misc]
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
            await asyncio.gather(service.drain(), asyncio.sleep(drain_s))
            self.should_exit = True

    return Draining(config)
