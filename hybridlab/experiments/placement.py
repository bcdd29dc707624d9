"""Where a variant has its tenants: in this process, in workers, in servers, by another library, on
the host.

The one place that knows; strategies are given tenants and do not ask.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hybridlab.catalog import BACKEND_DEFAULT_DTYPE
from hybridlab.devices import CpuDevice, Device, card_of
from hybridlab.devices.cores import SharedBoard
from hybridlab.errors import UnavailableError
from hybridlab.models import Analyst, TenantSpec, Transcriber, make_analyst, make_transcriber
from hybridlab.models.attention import has_fused_grouped
from hybridlab.models.over_http import HttpAnalyst, HttpTranscriber, command
from hybridlab.models.remote import RemoteAnalyst, RemoteTranscriber
from hybridlab.models.services import Gateway, Server
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.workers import Worker

Tenants = tuple[Transcriber | None, Analyst]


@dataclass(frozen=True)
class Site:
    """Where tenants are made."""

    device: Device
    #: Holds what lives as long as the tenants.
    stack: ExitStack
    #: What workers print goes here; None drops it.
    log: Path | None = None


Placing = Callable[[TenantSpec | None, TenantSpec, Site], Tenants]


def transcriber_spec(variant: str, spec: TenantSpec, device: Device) -> TenantSpec:
    """The Whisper that this variant has in place of the pair's."""
    if variant == "ctranslate2" and spec.backend != "faster-whisper":
        known = spec.dtype if spec.dtype in ("float32", "float16", "int8") else None
        default = BACKEND_DEFAULT_DTYPE["faster-whisper"] if device.kind == "cuda" else "float32"
        return replace(spec, backend="faster-whisper", dtype=known or default)
    if variant == "whisper-on-cpu":
        return replace(spec, dtype="float32")
    return spec


def shares_device(variant: str) -> bool:
    """Whether Whisper's bytes are the device's."""
    return variant != "whisper-on-cpu"


def place(variant: str, transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    """The tenants of a variant, nothing loaded yet. `UnavailableError` for what is not there."""
    placing = PLACINGS.get(variant, _beside)
    return placing(transcriber, analyst, site)


def _beside(transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    """Both in this process."""
    made = make_transcriber(transcriber, site.device) if transcriber is not None else None
    return made, make_analyst(analyst, site.device)


def _on_host(transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    if site.device.kind == "cpu":
        raise UnavailableError(
            "the device is the CPU already; whisper-on-cpu needs a GPU beside it"
        )
    made = make_transcriber(transcriber, CpuDevice()) if transcriber is not None else None
    return made, make_analyst(analyst, site.device)


def _in_workers(
    transcriber: TenantSpec | None,
    analyst: TenantSpec,
    site: Site,
    *,
    environment: dict[str, str] | None = None,
) -> Tenants:
    device = site.device
    if device.kind == "cpu" and device.enveloped:
        raise UnavailableError(
            "an envelope on a CPU limits one process and a worker is another; use the variant "
            "threads, or no envelope"
        )
    board = None
    if device.cores is not None:
        board = SharedBoard()
        site.stack.callback(board.close)
    second = None
    if transcriber is not None:
        worker = site.stack.enter_context(Worker("whisper", log=site.log))
        second = RemoteTranscriber(
            transcriber, device, worker, board=board, environment=environment
        )
        site.stack.callback(second.leave)
    worker = site.stack.enter_context(Worker("voxtral", log=site.log))
    first = RemoteAnalyst(analyst, device, worker, board=board, environment=environment)
    site.stack.callback(first.leave)
    return second, first


def _behind_mps(transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    environment = site.stack.enter_context(multi_process_service(site.device))
    return _in_workers(transcriber, analyst, site, environment=environment)


def _in_one_server(transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    options = command(
        analyst=analyst, transcriber=_needed(transcriber), device=_of_servers(site.device, analyst)
    )
    server = _server("pair", options, site)
    return HttpTranscriber(_needed(transcriber), site.device, server), HttpAnalyst(
        analyst, site.device, server
    )


def _in_two_servers(transcriber: TenantSpec | None, analyst: TenantSpec, site: Site) -> Tenants:
    """Behind a gateway, which all requests go through, as those of such a deployment's clients."""
    whisper, device = _needed(transcriber), _of_servers(site.device, analyst)
    board = None
    if site.device.cores is not None:
        shared = SharedBoard()
        site.stack.callback(shared.close)
        board = shared.path
    options = {
        "whisper": command(transcriber=whisper, device=device, board=board),
        "voxtral": command(analyst=analyst, device=device, board=board),
    }
    servers = {name: _server(name, own, site) for name, own in options.items()}
    for server in servers.values():
        server.beside = list(servers.values())
    gateway = Gateway(servers, site.device)
    site.stack.callback(gateway.stop)
    return HttpTranscriber(whisper, site.device, servers["whisper"], gateway), HttpAnalyst(
        analyst, site.device, servers["voxtral"], gateway
    )


def _needed(transcriber: TenantSpec | None) -> TenantSpec:
    if transcriber is None:
        raise UnavailableError("servers for the pair need a Whisper; name another variant")
    return transcriber


def _server(name: str, options: list[str], site: Site) -> Server:
    server = Server(name, options, site.device)
    site.stack.callback(server.stop)
    return server


def _of_servers(device: Device, analyst: TenantSpec) -> str:
    """The device that servers are told to use."""
    own = card_of(device)
    if not has_fused_grouped(analyst.card) and (own is None or own.name != analyst.card):
        raise UnavailableError(
            f"servers use the kernels of {device.name} and not those of a {analyst.card}; use the "
            "variant processes"
        )
    if device.kind == "cpu" and device.enveloped:
        raise UnavailableError(
            "an envelope on a CPU limits one process and a server is another; use the variant "
            "threads, or no envelope"
        )
    return device.name


PLACINGS: dict[str, Placing] = {
    "processes": _in_workers,
    "processes-mps": _behind_mps,
    "whisper-on-cpu": _on_host,
    "single-container": _in_one_server,
    "separate-containers": _in_two_servers,
}
#: Variants whose tenants are servers, which take seconds to start.
IN_SERVERS = ("single-container", "separate-containers")
