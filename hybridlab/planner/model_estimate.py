"""What one model takes by itself on a card, as its own counters and the driver would say it."""

from __future__ import annotations

from hybridlab import catalog
from hybridlab.catalog import Attention, Card, VoxtralModel
from hybridlab.errors import ParameterError
from hybridlab.planner.activations import Request
from hybridlab.planner.allocator import (
    request_bytes,
    resident_cache_bytes,
    tensors_cache_bytes,
)
from hybridlab.planner.estimate import ZERO, Estimate, total
from hybridlab.planner.memory_plan import (
    context_bytes,
    default_voxtral_dtype,
    library_bytes,
    workspace_bytes,
)
from hybridlab.planner.weights import (
    voxtral_weights_bytes,
    whisper_load_peak_bytes,
    whisper_weights_bytes,
)

#: What is estimated, in bytes; `device_peak_bytes` is what the driver has given out.
QUANTITIES = (
    "weights_bytes",
    "load_peak_bytes",
    "idle_bytes",
    "request_peak_allocated_bytes",
    "request_peak_reserved_bytes",
    "device_peak_bytes",
)


def checked_dtype(name: str, card: Card, backend: str, dtype: str) -> str:
    """What the weights are kept in, `auto` by the model's kind; `ParameterError` where they cannot
    be."""
    if not isinstance(catalog.model_named(name), VoxtralModel):
        known = catalog.backend(backend)
        dtype = known.default_dtype if dtype == "auto" else dtype
        known.check_dtype(dtype)
        return dtype
    if backend != "transformers":
        raise ParameterError(f"{name} runs through transformers alone; leave out --backend")
    if dtype == "auto":
        return default_voxtral_dtype(card)
    if dtype not in catalog.LLM_DTYPES:
        raise ParameterError.unknown_name("dtype", dtype, catalog.LLM_DTYPES)
    return dtype


def estimate_model(
    name: str,
    card: Card,
    request: Request,
    *,
    backend: str,
    dtype: str,
    attention: Attention = "auto",
) -> dict[str, Estimate]:
    """`QUANTITIES` of a Whisper or a Voxtral and one request. `ParameterError` for a dtype that the
    backend cannot keep."""
    model, outside, tensors = catalog.model_named(name), context_bytes(card), ZERO
    if isinstance(model, VoxtralModel):
        weights = load = voxtral_weights_bytes(model, dtype=dtype)
    else:
        weights = whisper_weights_bytes(model, backend=backend, dtype=dtype)
        load = whisper_load_peak_bytes(model, backend=backend, dtype=dtype)
        outside = outside + library_bytes(card, backend)
        tensors = tensors_cache_bytes(card, backend, weights)
    at_work, cache = request_bytes(
        model, request, card, backend=backend, dtype=dtype, attention=attention
    )
    idle = total([Estimate.exact(weights), workspace_bytes(card)])
    reserved = total([idle, at_work, cache, resident_cache_bytes(card), tensors])
    return {
        "weights_bytes": Estimate.exact(weights),
        "load_peak_bytes": Estimate.exact(load),
        "idle_bytes": idle,
        "request_peak_allocated_bytes": idle + at_work,
        "request_peak_reserved_bytes": reserved,
        "device_peak_bytes": reserved + outside,
    }
