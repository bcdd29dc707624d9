"""What every work of a case that serves requests does: make the strategy, load it, serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridlab import catalog
from hybridlab.audio import Samples, of_length, read_audio
from hybridlab.devices import MemoryOwners
from hybridlab.experiments.case import RequestSpec
from hybridlab.experiments.case_context import CaseContext, write_spans, write_trial
from hybridlab.experiments.placement import Site, place
from hybridlab.models import Model
from hybridlab.models.http_model import OverHttp
from hybridlab.models.server_process import beside_weights
from hybridlab.strategies import CompletedRequest, Request, Strategy, make_strategy


def strategy_of(context: CaseContext) -> Strategy:
    """The case's strategy over its models, nothing loaded yet."""
    case = context.case
    site = Site(context.device, context.stack, context.log)
    variant = catalog.variant(case.strategy, case.variant)
    asr, llm = place(variant, case.asr, case.llm, site)
    strategy = make_strategy(
        case.strategy,
        case.variant,
        asr=asr,
        llm=llm,
        options=case.options.get("strategy"),
    )
    strategy.load_order = case.load_order
    return strategy


def bring_up(context: CaseContext, strategy: Strategy) -> None:
    """Load, read the audio, and warm up: all that has to fit before the first request."""
    load(context, strategy)
    read_clips(context)
    warm_up(context, strategy)


def load(context: CaseContext, strategy: Strategy) -> None:
    """Load what stays resident, measured; a failure from here on says in which phase it came."""
    moving = len(strategy.resident) < len(strategy.models)
    context.follow(strategy.models, lambda: strategy.bytes_by_owner(strategy.models), moving=moving)
    context.enter("load")
    before = context.device.memory_owners()
    with context.meter.region("load") as region:
        strategy.open()
    context.meter.loaded = context.meter.settle()
    context.loaded_owners = strategy.bytes_by_owner(strategy.resident)
    context.result["load_s"] = region.seconds
    context.result["link_bytes_per_s"] = strategy.link_bytes_per_s
    context.result["host_copy_bytes"] = strategy.host_copy_bytes()
    context.result |= _server_columns(context, strategy, before)
    for model in strategy.models:
        stays = model in strategy.resident and model.device.name == context.device.name
        context.result[f"{model.name}_weights_bytes"] = model.weights_bytes() if stays else None
        write_spans(context, None, model.drain_spans())


def load_alone(context: CaseContext, model: Model) -> None:
    """Load one model without a strategy, measured."""
    weights = f"{model.name} weights"
    context.follow([model], lambda: {weights: model.weights_bytes() or 0 if model.loaded else 0})
    context.enter(f"load {model.name}")
    with context.meter.region("load"):
        model.load()
    context.meter.loaded = context.meter.settle()
    context.result[f"{model.name}_weights_bytes"] = model.weights_bytes()


def _server_columns(
    context: CaseContext, strategy: Strategy, before: MemoryOwners
) -> dict[str, Any]:
    """How many servers the models are in, what those hold of the device beside weights when all is
    loaded, and a gateway over them; nothing for models that are not asked over HTTP."""
    asked = [model for model in strategy.models if isinstance(model, OverHttp)]
    if not asked:
        return {}
    servers = {model.server for model in asked}
    gateways = {model.gateway for model in asked if model.gateway is not None}
    for service in (*servers, *gateways):
        service.count()
    overhead = beside_weights(context.device, servers, before)
    return {
        "servers": len(servers),
        "server_overhead_bytes": overhead.value,
        "server_overhead_reason": overhead.reason,
        "gateway_bytes": sum(one.overhead_bytes for one in gateways) if gateways else None,
    }


def read_clips(context: CaseContext) -> None:
    """The audio of all requests into `context.clips`, once a case."""
    if not context.clips:
        context.clips = {spec.clip_id: _read_clip(spec) for spec in context.case.requests}


def _read_clip(spec: RequestSpec) -> Samples:
    samples = read_audio(Path(spec.path))
    return of_length(samples, spec.audio_s) if spec.resized else samples


def warm_up(context: CaseContext, strategy: Strategy) -> None:
    """Requests before the measured ones; the first of them is recorded apart as a trial of its
    own, since a first request pays for lazy initialisation."""
    for index in range(context.case.warmup):
        spec = context.case.requests[index % len(context.case.requests)]
        outcome = measured_request(context, strategy, request_of(context, spec))
        if index == 0:
            write_trial(context, spec, outcome, is_first_request=True, suffix="-first")


def measured_request(
    context: CaseContext, strategy: Strategy, request: Request, *, phases: bool = False
) -> CompletedRequest:
    context.enter("request")
    with context.meter.region("request") as region:
        if not phases:
            return strategy.serve(request)
        if strategy.answers_at_once:
            with context.meter.apart(region) as around:
                return strategy.serve(request, around=around)
        with context.meter.phases(region, strategy.models):
            return strategy.serve(request)


def rest(context: CaseContext, strategy: Strategy) -> None:
    """Read what is in use between requests: after the last, when all is warm, since giving memory
    back before one would cost it time."""
    context.meter.idle = context.meter.settle()
    context.idle_owners = strategy.bytes_by_owner(strategy.models)


def close(context: CaseContext, strategy: Strategy) -> None:
    """The end of a work that has served what it had to."""
    rest(context, strategy)
    context.enter("close")
    strategy.close()


@contextmanager
def measured(context: CaseContext) -> Iterator[None]:
    """A request, or several that are worked on at once, as a region of its own."""
    context.enter("request")
    with context.meter.region("request"):
        yield


def requests_of(context: CaseContext) -> list[Request]:
    """All requests of the case."""
    return [request_of(context, spec) for spec in context.case.requests]


def request_of(context: CaseContext, spec: RequestSpec) -> Request:
    case = context.case
    return Request(
        id=spec.id,
        samples=context.clips[spec.clip_id],
        question=spec.question,
        language=case.language,
        max_new_tokens=case.max_new_tokens,
        asr_max_new_tokens=case.asr_tokens,
    )
