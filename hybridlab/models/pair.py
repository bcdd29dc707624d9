"""The pair that parameters name, on a device: dtypes resolved, and the one check that this machine
has its backends and weights."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.config.params import Params
from hybridlab.devices import Device
from hybridlab.models.base import ModelSpec, resolve_dtype
from hybridlab.models.source import check_source


@dataclass(frozen=True)
class Pair:
    """An LLM and a recogniser."""

    llm: ModelSpec
    asr: ModelSpec

    def check(self) -> None:
        """`UnavailableError` for a backend that is not installed, `WeightsError` for weights that
        are missing or another model's; nothing is loaded."""
        for spec in (self.llm, self.asr):
            check_source(spec)


def pair_of(params: Params, device: Device) -> Pair:
    """`UnavailableError` for a dtype that the device does not compute in."""
    llm = ModelSpec(
        model=params.llm_model,
        backend="transformers",
        weights=params.llm_weights,
        dtype=resolve_dtype(params.llm_dtype, backend="transformers", device=device, role="llm"),
        path=params.llm_path,
        seed=params.seed,
        attention=params.attention,
        decoding=params.decoding,
        card=stood_in_for(params, device),
    )
    own = {"backend": params.asr_backend, "dtype": params.asr_dtype}
    return Pair(
        llm,
        asr_spec(params, device, params.asr_model, weights=params.asr_weights, **own),
    )


def asr_spec(
    params: Params, device: Device, model: str, *, backend: str, weights: str, dtype: str
) -> ModelSpec:
    """A recogniser with the path and the seed of the parameters."""
    return ModelSpec(
        model=model,
        backend=backend,
        weights=weights,
        dtype=resolve_dtype(dtype, backend=backend, device=device, role="asr"),
        path=params.asr_path,
        seed=params.seed + 1,
        # no other weights know timestamps, whatever the pair's are asked for
        asr_decoding=params.asr_decoding if weights in catalog.RELEASED else "plain",
    )


def stood_in_for(params: Params, device: Device) -> str:
    """The card that a GPU stands in for; '' where it speaks for itself alone."""
    if device.is_host:
        return ""
    return params.memory_limit or (params.card if params.card != "auto" else "")
