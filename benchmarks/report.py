"""What the benchmarks share: options, seconds, ratios with intervals, and the JSON they print."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from hybridlab.analysis.stats import bootstrap_interval
from hybridlab.devices import Device
from hybridlab.devices.nvml import nvml_facts
from hybridlab.models import ModelSpec
from hybridlab.models.base import Role, resolve_dtype
from hybridlab.results.manifest import now, provenance


def options(
    description: str | None, arguments: Sequence[str] | None = None, **defaults: Any
) -> argparse.Namespace:
    """The command's options, of the type of their defaults; a default that is a pair of a value and
    a collection allows its members alone."""
    parser = argparse.ArgumentParser(description=description)
    for name, given in defaults.items():
        value, choices = given if isinstance(given, tuple) else (given, None)
        many: dict[str, Any] = {"nargs": "+"} if isinstance(value, list) else {}
        kind = str if many else type(value)
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=value, type=kind, choices=choices, **many)
    return parser.parse_args(arguments)


def model_spec(
    model: str, dtype: str, device: Device, role: Role, *, weights: str = "random", **fields: Any
) -> ModelSpec:
    """A model through transformers, its dtype as the device has it."""
    kept = resolve_dtype(dtype, backend="transformers", device=device, role=role)
    return ModelSpec(model=model, backend="transformers", weights=weights, dtype=kept, **fields)


def seconds(work: Callable[[], Any], device: Device | None = None) -> float:
    """How long the work takes, until the device has done it."""
    if device is not None:
        device.synchronize()
    began = time.perf_counter()
    work()
    if device is not None:
        device.synchronize()
    return time.perf_counter() - began


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The median in seconds, with every repeat beside it."""
    return {"median_s": statistics.median(values), "values_s": [round(v, 4) for v in values]}


def interval(name: str, values: Sequence[float]) -> dict[str, Any]:
    """A median with its bootstrap 95 % interval; None where JSON has no not-a-number."""
    found = bootstrap_interval(values)
    value, low, high = (
        None if math.isnan(bound) else bound for bound in (found.value, found.low, found.high)
    )
    return {name: value, f"{name}_interval": [low, high]}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Turn by turn, so that a drifting machine weighs on both alike."""
    return [a / b for a, b in zip(above, below, strict=True)]


def publish(**results: Any) -> str:
    """The results as JSON on stdout, behind the code, the machine and the time they are of."""
    text = json.dumps({**provenance(), "gpu": nvml_facts(), "ended": now(), **results}, indent=2)
    print(text)
    return text
