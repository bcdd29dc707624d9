"""The models that parameters name: the pair on a device, dtypes resolved, with the check that this
machine has its backends and folders; and all of a notebook's, to be fetched."""

from __future__ import annotations

from dataclasses import dataclass

from hybridlab import catalog
from hybridlab.config.params import Params, WhichAsr
from hybridlab.devices import Device
from hybridlab.models.base import ModelSpec, resolve_dtype
from hybridlab.models.checkpoint import is_released
from hybridlab.models.source import check_backend, check_source


@dataclass(frozen=True)
class Pair:
    """An LLM and a recogniser."""

    llm: ModelSpec
    asr: ModelSpec

    def check(self) -> None:
        """`UnavailableError` for a backend that is not installed, `WeightsError` for a folder that
        is missing or another model's; nothing is loaded. What is released is fetched first, which
        tells (`hybridlab.models.provision`)."""
        for spec in (self.llm, self.asr):
            if is_released(spec):
                check_backend(spec)
            else:
                check_source(spec)


def pair_of(params: Params, device: Device) -> Pair:
    """`UnavailableError` for a dtype that the device does not compute in."""
    llm = ModelSpec(
        model=params.llm_model,
        backend="transformers",
        weights=params.llm_weights,
        dtype=resolve_dtype(params.llm_dtype, backend="transformers", device=device, role="llm"),
        path=params.llm_path,
        revision=params.llm_revision,
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
        revision=_revision(params, model, backend),
        seed=params.seed + 1,
        # no other weights know timestamps, whatever the pair's are asked for
        asr_decoding=params.asr_decoding if weights in catalog.RELEASED else "plain",
    )


def specs_of(params: Params) -> list[ModelSpec]:
    """All models that this notebook's cases load, the pair's first, for what asks where weights
    come from: neither the device nor a dtype matters there, and each has its backend's own."""
    if not params.measures:
        return []
    llm = ModelSpec(
        model=params.llm_model,
        backend="transformers",
        weights=params.llm_weights,
        dtype="float16",
        path=params.llm_path,
        revision=params.llm_revision,
    )
    return [llm, *(_released(params, which) for which in params.recognizers())]


def _released(params: Params, which: WhichAsr) -> ModelSpec:
    return ModelSpec(
        model=which.model,
        backend=which.backend,
        weights=catalog.source_of(which.model, which.weights),
        dtype=catalog.backend(which.backend).default_dtype,
        path=params.asr_path,
        revision=_revision(params, which.model, which.backend),
    )


def _revision(params: Params, model: str, backend: str) -> str:
    """A revision is one of a repository: of the pair's own recogniser."""
    own = (params.asr_model, params.asr_backend)
    return params.asr_revision if (model, backend) == own else ""


def stood_in_for(params: Params, device: Device) -> str:
    """The card that a GPU stands in for; '' where it speaks for itself alone."""
    if device.is_host:
        return ""
    return params.memory_limit or (params.card if params.card != "auto" else "")
