"""What every work of a case that serves requests does: make the strategy, load it, serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hybridlab.audio import Samples, of_length, read_audio
from hybridlab.devices import Account
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.placement import Site, place
from hybridlab.experiments.rows import Context, write_spans, write_trial
from hybridlab.models.over_http import OverHttp
from hybridlab.models.services import beside_weights
from hybridlab.strategies import Inbox, Request, Served, Strategy, make_strategy


def strategy_of(context: Context, *, stack: ExitStack | None = None) -> Strategy:
    """The case's strategy over its tenants, nothing loaded yet. `stack` holds what lives as long
    as they do, the case's own without one."""
    case = context.case
    site = Site(context.device, stack or context.stack, context.log)
    transcriber, analyst = place(case.variant, case.transcriber, case.analyst, site)
    strategy = make_strategy(
        case.strategy,
        case.variant,
        transcriber=transcriber,
        analyst=analyst,
        options=dict(case.options.get("strategy", {})),
    )
    strategy.load_order = case.load_order
    return strategy


def load(context: Context, strategy: Strategy) -> None:
    """Load what stays resident, measured; a failure from here on says in which phase it came."""
    moving = len(strategy.resident) < len(strategy.tenants)
    context.follow(strategy.tenants, lambda: strategy.held(strategy.tenants), moving=moving)
    context.enter("load")
    before = context.device.account()
    with context.meter.region("load") as region:
        strategy.open()
    context.meter.settle()
    context.result["load_s"] = region.seconds
    context.result["link_bytes_per_s"] = strategy.link_bytes_per_s
    context.result["host_copy_bytes"] = strategy.host_copy_bytes()
    context.result |= _server_columns(context, strategy, before)
    for tenant in strategy.tenants:
        stays = tenant in strategy.resident and tenant.device.kind == context.device.kind
        context.result[f"{tenant.name}_bytes"] = tenant.weights_bytes() if stays else None
        write_spans(context, None, tenant.drain_spans())


def _server_columns(context: Context, strategy: Strategy, before: Account) -> dict[str, Any]:
    """How many servers the tenants are in, what those hold of the device beside weights when all is
    loaded, and a gateway over them; nothing for tenants that are not asked over HTTP."""
    asked = [tenant for tenant in strategy.tenants if isinstance(tenant, OverHttp)]
    if not asked:
        return {}
    servers = {tenant.server for tenant in asked}
    gateways = {tenant.gateway for tenant in asked if tenant.gateway is not None}
    for service in (*servers, *gateways):
        service.count()
    overhead = beside_weights(context.device, servers, before)
    return {
        "servers": len(servers),
        "server_overhead_bytes": overhead.value,
        "server_overhead_reason": overhead.reason,
        "gateway_bytes": sum(one.overhead_bytes for one in gateways) if gateways else None,
    }


def read_clips(context: Context) -> dict[str, Samples]:
    """The audio of all requests by clip."""
    return {spec.clip_id: read_clip(spec) for spec in context.case.requests}


def read_clip(spec: RequestSpec) -> Samples:
    samples = read_audio(Path(spec.path))
    return of_length(samples, spec.audio_s) if spec.resized else samples


def warm_up(context: Context, strategy: Strategy, audio: dict[str, Samples]) -> None:
    """Requests before the measured ones; the first of them is recorded apart as a trial of its
    own, since a first request pays for lazy initialisation."""
    for index in range(context.case.warmup):
        spec = context.case.requests[index % len(context.case.requests)]
        request = request_of(context, spec, audio[spec.clip_id])
        outcome = measured_request(context, strategy, request)
        if index == 0:
            write_trial(context, spec, outcome, first=True, parity=None, suffix="-first")


def measured_request(
    context: Context, strategy: Strategy, request: Request, *, phases: bool = False
) -> Served:
    context.enter("request")
    with context.meter.region("request") as region:
        if not phases:
            return strategy.serve(request)
        if strategy.at_once:
            with context.meter.apart(region) as told:
                return strategy.serve(request, around=told.around)
        with context.meter.phases(region, strategy.tenants):
            return strategy.serve(request)


def measured_stream(
    context: Context, strategy: Strategy, requests: Sequence[Request], *, phases: bool = False
) -> Iterator[Served]:
    """These requests: each measured by itself or, where the variant works on several at once, all
    together."""
    if not strategy.streams:
        for request in requests:
            yield measured_request(context, strategy, request, phases=phases)
        return
    context.enter("request")
    with context.meter.region("request"):
        yield from strategy.stream(Inbox(requests))


def requests_of(context: Context, audio: dict[str, Samples]) -> list[Request]:
    """All requests of the case."""
    return [request_of(context, spec, audio[spec.clip_id]) for spec in context.case.requests]


def request_of(context: Context, spec: RequestSpec, samples: Samples) -> Request:
    return Request(
        id=spec.id,
        samples=samples,
        question=spec.question,
        language=context.case.language,
        max_new_tokens=context.case.max_new_tokens,
    )
