"""Which weights, backend and dtype go with which model: the one check of a pair's names, for
notebooks and server. Whether this machine has them says `hybridlab.models.pair`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from hybridlab import catalog
from hybridlab.errors import ParameterError


def check_weights(role: str, model: str, weights: str, path: str) -> None:
    """`ParameterError` where the model of this role ('llm', 'asr') cannot come from these weights.
    Models that ship with the package have `pocket` weights, and only they have."""
    shipped = catalog.model_named(model).shipped
    if weights in ("pocket", "hub", "random") and (weights == "pocket") != shipped:
        good = "pocket" if shipped else "hub, local or random"
        raise ParameterError(
            f"{role}_model {model!r} has no {weights!r} weights; set {role}_weights to {good}"
        )
    if weights == "local" and not path:
        raise ParameterError(f"{role}_weights 'local' needs {role}_path, a folder in hub format")


def check_asr(model: str, weights: str, path: str, *, backend: str, dtype: str) -> None:
    """As `check_weights`, and `ParameterError` where the backend cannot keep it in `dtype`."""
    check_weights("asr", model, weights, path)
    if dtype != "auto":
        catalog.backend(backend).check_dtype(dtype)


def check_revision(
    role: str, revision: str, weights: str, *, backend: str = "transformers"
) -> None:
    """`ParameterError` where these weights come from no repository of the hub's."""
    if not revision:
        return
    if weights != "hub":
        raise ParameterError(
            f"{role}_revision {revision!r} is one of the hub's, and the weights are {weights!r}; "
            f"leave it empty, or set {role}_weights to hub"
        )
    if catalog.backend(backend).checkpoints == "openai":
        raise ParameterError(
            f"{role}_revision {revision!r}: openai-whisper's own checkpoints have one state each, "
            "named by its SHA-256; leave it empty, or choose another asr_backend"
        )


def check_asr_decoding(decoding: str, weights: str) -> None:
    """`ParameterError` where these weights know no timestamps."""
    if decoding == "timestamps" and weights not in catalog.RELEASED:
        raise ParameterError(
            f"asr_decoding 'timestamps' needs released weights, and {weights!r} ones know none; "
            "set asr_decoding to auto or plain"
        )


def check_asr_models(
    models: Iterable[str], weights: str, path: str, *, backend: str, dtype: str = "auto"
) -> None:
    """`check_asr` for each, where `weights` is the choice for released ones."""
    for model in models:
        source = catalog.source_of(model, weights)
        check_asr(model, source, path, backend=backend, dtype=dtype)


def check_language(models: Iterable[str], language: str) -> None:
    """`ParameterError` where one of these models does not know the language."""
    for model in models:
        catalog.language_for(model, language)


def check_fallbacks(models: Sequence[str], weights: str) -> None:
    """`ParameterError` unless each of these recognisers, the pair's own first, is smaller than the
    one before it, and none is for English alone after one that is not."""
    if len(models) > 1 and weights == "local":
        raise ParameterError(
            "asr_weights 'local' are those of one Whisper; smaller ones need hub, random or pocket "
            "weights"
        )
    for larger, model in itertools.pairwise(models):
        if catalog.whisper(model).parameters >= catalog.whisper(larger).parameters:
            raise ParameterError(
                f"the fallback has {model!r} after {larger!r}, which is no smaller; name the "
                "sizes from large to small, without the pair's own"
            )
        if catalog.whisper(larger).multilingual and not catalog.whisper(model).multilingual:
            raise ParameterError(
                f"the fallback has {model!r}, which is for English alone, after {larger!r}, which "
                "is not; name multilingual sizes"
            )
