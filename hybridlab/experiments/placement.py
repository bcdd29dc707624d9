"""Where a variant has its models: in this process, in workers, in servers, on the host.

The one place that knows; strategies are given models and do not ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.catalog.strategies import Place
from hybridlab.devices import CpuDevice, Device, card_of
from hybridlab.errors import UnavailableError
from hybridlab.models import AudioLanguageModel, ModelSpec, SpeechRecognizer, make_asr, make_llm
from hybridlab.models.attention import has_fused_grouped
from hybridlab.models.http_model import HttpLanguageModel, HttpRecognizer, command
from hybridlab.models.server_process import FrontServer, Server
from hybridlab.models.worker_model import WorkerLanguageModel, WorkerRecognizer
from hybridlab.processes.mps import multi_process_service
from hybridlab.processes.worker import Worker

Models = tuple[SpeechRecognizer | None, AudioLanguageModel]


@dataclass(frozen=True)
class Site:
    """Where models are made."""

    device: Device
    #: Holds what lives as long as the models.
    stack: ExitStack
    #: What workers print goes here; None drops it.
    log: Path | None = None


Placing = Callable[[ModelSpec | None, ModelSpec, Site], Models]


def asr_spec(variant: catalog.Variant, spec: ModelSpec, device: Device) -> ModelSpec:
    """The recogniser that this variant has in place of the pair's."""
    if variant.backend and spec.backend != variant.backend:
        backend = catalog.backend(variant.backend)
        default = "float32" if device.is_host else backend.default_dtype
        dtype = spec.dtype if spec.dtype in backend.dtypes else default
        return replace(spec, backend=backend.name, dtype=dtype)
    return spec if variant.shares_device else replace(spec, dtype="float32")


def place(variant: catalog.Variant, asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    """The models of a variant, nothing loaded yet. `UnavailableError` for what is not there."""
    return PLACES[variant.place](asr, llm, site)


def _in_process(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    made = make_asr(asr, site.device) if asr is not None else None
    return made, make_llm(llm, site.device)


def _asr_on_host(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    if site.device.is_host:
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
) -> Models:
    _check_limit(site.device, "a worker")
    count = 1 if asr is None else 2
    shared: dict[str, Any] = {"concurrent_models": count, "environment": environment}
    recognizer = _worker_model(WorkerRecognizer, asr, site, shared) if asr is not None else None
    return recognizer, _worker_model(WorkerLanguageModel, llm, site, shared)


def _worker_model(kind: Any, spec: ModelSpec, site: Site, shared: dict[str, Any]) -> Any:
    worker = site.stack.enter_context(Worker(kind.name, log=site.log))
    made = kind(spec, site.device, worker, **shared)
    site.stack.callback(made.leave)
    return made


def _behind_mps(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    environment = site.stack.enter_context(multi_process_service(site.device))
    return _in_workers(asr, llm, site, environment=environment)


def _in_one_server(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    asr, device = _needed(asr), _of_servers(site.device, llm)
    server = _server("pair", command(llm=llm, asr=asr, device=device), site)
    return HttpRecognizer(asr, site.device, server), HttpLanguageModel(llm, site.device, server)


def _in_two_servers(asr: ModelSpec | None, llm: ModelSpec, site: Site) -> Models:
    """Behind a third that all requests go through, as those of such a deployment's clients."""
    asr, device = _needed(asr), _of_servers(site.device, llm)
    servers = {
        "asr": _server("asr", command(asr=asr, device=device), site),
        "llm": _server("llm", command(llm=llm, device=device), site),
    }
    for server in servers.values():
        server.beside = list(servers.values())
        if site.device.is_host:  # two servers that each had all cores would wait for another
            server.environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // 2))
    front = FrontServer(servers, site.device)
    site.stack.callback(front.stop)
    return (
        HttpRecognizer(asr, site.device, servers["asr"], front),
        HttpLanguageModel(llm, site.device, servers["llm"], front),
    )


def _needed(asr: ModelSpec | None) -> ModelSpec:
    if asr is None:
        raise UnavailableError("servers for the pair need a recogniser; name another variant")
    return asr


def _server(name: str, options: list[str], site: Site) -> Server:
    server = Server(name, options, site.device)
    site.stack.callback(server.stop)
    return server


def _of_servers(device: Device, llm: ModelSpec) -> str:
    """The device that servers are started with."""
    own = card_of(device)
    if not has_fused_grouped(llm.card) and (own is None or own.name != llm.card):
        raise UnavailableError(
            f"servers use the kernels of {device.name} and not those of a {llm.card}; use the "
            "variant processes"
        )
    _check_limit(device, "a server")
    return device.name


def _check_limit(device: Device, other: str) -> None:
    if device.is_host and device.memory_limited:
        raise UnavailableError(
            f"a memory limit on a CPU limits one process and {other} is another; use the variant "
            "threads, or no memory limit"
        )


PLACES: dict[Place, Placing] = {
    "process": _in_process,
    "workers": _in_workers,
    "workers-mps": _behind_mps,
    "asr-on-host": _asr_on_host,
    "server": _in_one_server,
    "servers": _in_two_servers,
}
