"""Where a variant has its tenants: in this process, in workers, in servers, by another library, on
the host.

The one place that knows; strategies are given tenants and do not ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridlab.catalog import BACKEND_DEFAULT_DTYPE
from hybridlab.devices import CpuDevice, Device, card_of
from hybridlab.errors import UnavailableError
from hybridlab.models import AudioLanguageModel, ModelSpec, SpeechRecognizer, make_asr, make_llm
from hybridlab.models.attention import has_fused_grouped
from hybridlab.models.http_model import HttpLanguageModel, HttpRecognizer, command
from hybridlab.models.server_process import FrontServer, Server
from hybridlab.models.worker_model import WorkerLanguageModel, WorkerRecognizer
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.worker import Worker

Tenants = tuple[SpeechRecognizer | None, AudioLanguageModel]


@dataclass(frozen=True)
class Site:
    """Where tenants are made."""

    device: Device
    #: Holds what lives as long as the tenants.
    stack: ExitStack
    #: What workers print goes here; None drops it.
    log: Path | None = None


Placing = Callable[[ModelSpec | None, ModelSpec, Site], Tenants]


def asr_spec(variant: str, spec: ModelSpec, device: Device) -> ModelSpec:
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


def place(variant: str, asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    """The tenants of a variant, nothing loaded yet. `UnavailableError` for what is not there."""
    placing = PLACINGS.get(variant, _beside)
    return placing(asr, llm, site)


def _beside(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    """Both in this process."""
    made = make_asr(asr, site.device) if asr is not None else None
    return made, make_llm(llm, site.device)


def _on_host(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    if site.device.kind == "cpu":
        raise UnavailableError(
            "the device is the CPU already; whisper-on-cpu needs a GPU beside it"
        )
    made = make_asr(asr, CpuDevice()) if asr is not None else None
    return made, make_llm(llm, site.device)


def _in_workers(
    asr: ModelSpec | None,
    llm: ModelSpec,
    site: Site,
    *,
    environment: dict[str, str] | None = None,
) -> Tenants:
    device = site.device
    if device.kind == "cpu" and device.memory_limited:
        raise UnavailableError(
            "a memory limit on a CPU limits one process and a worker is another; use the variant "
            "threads, or no memory limit"
        )
    shared: dict[str, Any] = {
        "concurrent_models": 1 if asr is None else 2,
        "environment": environment,
    }
    second = None
    if asr is not None:
        worker = site.stack.enter_context(Worker("asr", log=site.log))
        second = WorkerRecognizer(asr, device, worker, **shared)
        site.stack.callback(second.leave)
    worker = site.stack.enter_context(Worker("llm", log=site.log))
    first = WorkerLanguageModel(llm, device, worker, **shared)
    site.stack.callback(first.leave)
    return second, first


def _behind_mps(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    environment = site.stack.enter_context(multi_process_service(site.device))
    return _in_workers(asr, llm, site, environment=environment)


def _in_one_server(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    options = command(llm=llm, asr=_needed(asr), device=_of_servers(site.device, llm))
    server = _server("pair", options, site)
    return HttpRecognizer(_needed(asr), site.device, server), HttpLanguageModel(
        llm, site.device, server
    )


def _in_two_servers(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Tenants:
    """Behind a third that all requests go through, as those of such a deployment's clients."""
    whisper, device = _needed(asr), _of_servers(site.device, llm)
    options = {
        "asr": command(asr=whisper, device=device),
        "llm": command(llm=llm, device=device),
    }
    servers = {name: _server(name, own, site) for name, own in options.items()}
    for server in servers.values():
        server.beside = list(servers.values())
        if site.device.kind == "cpu":  # two servers that each had all cores would wait for another
            server.environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // 2))
    front = FrontServer(servers, site.device)
    site.stack.callback(front.stop)
    return HttpRecognizer(whisper, site.device, servers["asr"], front), HttpLanguageModel(
        llm, site.device, servers["llm"], front
    )


def _needed(asr: ModelSpec | None) -> ModelSpec:
    if asr is None:
        raise UnavailableError("servers for the pair need a Whisper; name another variant")
    return asr


def _server(name: str, options: list[str], site: Site) -> Server:
    server = Server(name, options, site.device)
    site.stack.callback(server.stop)
    return server


def _of_servers(device: Device, llm: ModelSpec) -> str:
    """The device that servers are told to use."""
    own = card_of(device)
    if not has_fused_grouped(llm.card) and (own is None or own.name != llm.card):
        raise UnavailableError(
            f"servers use the kernels of {device.name} and not those of a {llm.card}; use the "
            "variant processes"
        )
    if device.kind == "cpu" and device.memory_limited:
        raise UnavailableError(
            "a memory limit on a CPU limits one process and a server is another; use the variant "
            "threads, or no memory limit"
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
