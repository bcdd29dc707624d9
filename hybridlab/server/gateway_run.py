"""`hybridlab gateway`: from the command line to a gateway that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from hybridlab.errors import ParameterError
from hybridlab.server.door import check_extra, draining_server, listen, start_log
from hybridlab.server.settings import Settings

log = logging.getLogger("hybridlab.server")
UPSTREAM_TOKEN_VARIABLE = "HYBRIDLAB_UPSTREAM_TOKEN"


def run(values: Mapping[str, Any]) -> None:
    """Pass requests on until SIGTERM or Ctrl-C. `values`: the two addresses, and those options of
    a server that a gateway has too."""
    options = dict(values)
    urls = {name: _address(name, options.pop(f"{name}_url")) for name in ("whisper", "voxtral")}
    door = Settings.from_mapping(options)
    check_extra()
    listener = listen(door)
    start_log()
    asyncio.run(_serve(door, urls, listener))


def _address(name: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ParameterError(
            f"{name}-url {url!r} is no address of a server; write one like http://127.0.0.1:8001"
        )
    return url


def upstream_token(door: Settings) -> str:
    """What the gateway shows to its upstreams: its own variable, else the token of its clients."""
    return os.environ.get(UPSTREAM_TOKEN_VARIABLE, "").strip() or door.token


async def _serve(door: Settings, urls: Mapping[str, str], listener: socket.socket) -> None:
    from hybridlab.server.gateway import Gateway, make_app
    from hybridlab.server.security import Gate
    from hybridlab.server.upstream import Upstream

    upstreams = {
        name: Upstream(name, url, token=upstream_token(door), timeout_s=door.request_timeout_s)
        for name, url in urls.items()
    }
    gateway = Gateway(upstreams["whisper"], upstreams["voxtral"], queue=door.queue)
    gate = Gate(
        make_app(gateway, secured=bool(door.token)),
        token=door.token,
        loopback=door.loopback,
        max_upload_bytes=door.max_upload_bytes,
        upload_timeout_s=door.request_timeout_s,
        most_requests=door.most_requests,
        on_done=gateway.metrics.request_done,
    )
    log.info(
        "http://%s:%d passes on to whisper at %s and voxtral at %s",
        door.host,
        listener.getsockname()[1],
        urls["whisper"],
        urls["voxtral"],
    )
    # a gateway drains as a server does
    await draining_server(gate, door, gateway.drain).serve(sockets=[listener])
    await gateway.close()
