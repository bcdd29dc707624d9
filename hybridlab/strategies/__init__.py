"""How the two models share the device: who runs when, and where weights wait. Names and variants
are in `hybridlab.catalog.strategies`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridlab import catalog
from hybridlab.catalog.registry import load
from hybridlab.models.base import AudioLanguageModel, SpeechRecognizer
from hybridlab.strategies.base import Strategy
from hybridlab.strategies.requests import ArrivalQueue, CompletedRequest, Request

__all__ = ["ArrivalQueue", "CompletedRequest", "Request", "Strategy", "make_strategy"]


def make_strategy(
    name: str,
    variant: str,
    *,
    asr: SpeechRecognizer | None,
    llm: AudioLanguageModel,
    options: Mapping[str, Any] | None = None,
) -> Strategy:
    """The strategy of that name and variant over these models, nothing loaded yet."""
    implementation = load(catalog.strategy(name).implementation)
    made: Strategy = implementation(asr, llm, variant=variant, **(options or {}))
    return made
