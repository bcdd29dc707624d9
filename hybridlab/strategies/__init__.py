"""How the two tenants share the device: who runs when, and where weights wait."""

from __future__ import annotations

from hybridlab.errors import ParameterError
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.parallel import Parallel
from hybridlab.strategies.pipelined import Pipelined
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request
from hybridlab.strategies.sequential import Sequential
from hybridlab.strategies.solo import Solo
from hybridlab.strategies.swapping import Swapping

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy for strategy in (Solo, Sequential, Parallel, Pipelined, Swapping)
}

__all__ = ["STRATEGIES", "ArrivalQueue", "CompletedRequest", "Request", "Strategy", "make_strategy"]


def make_strategy(
    name: str,
    variant: str,
    *,
    asr: object | None,
    llm: object,
    options: dict[str, object] | None = None,
) -> Strategy:
    """The strategy of that name and variant over these tenants, nothing loaded yet."""
    if name not in STRATEGIES:
        raise ParameterError.unknown_name("strategy", name, STRATEGIES)
    kind = STRATEGIES[name]
    if variant not in kind.variants:
        raise ParameterError.unknown_name(f"variant of {name}", variant, kind.variants)
    return kind(asr, llm, variant=variant, **(options or {}))  # type: ignore[arg-type]
