"""The pocket models, loaded once: a Whisper for each backend, a Voxtral for each way to decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from hybridlab.audio import Clip, load_clips
from hybridlab.catalog import DECODINGS
from hybridlab.devices import CpuDevice
from hybridlab.models import ModelSpec, make_asr, make_llm
from hybridlab.models.base import AudioLanguageModel, SpeechRecognizer


def spec(model: str, backend: str = "transformers", **changes: str) -> ModelSpec:
    """Of pocket weights in float32, unless `changes` say otherwise."""
    values = {"weights": "pocket", "dtype": "float32", **changes}
    return ModelSpec(model=model, backend=backend, **values)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    return load_clips()


@pytest.fixture(scope="package")
def whisper() -> Callable[[str], SpeechRecognizer]:
    """`pocket-m` of a backend."""

    @cache
    def loaded(backend: str) -> SpeechRecognizer:
        if backend == "faster-whisper":
            pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")
        model = make_asr(spec("pocket-m", backend), CpuDevice())
        model.load()
        return model

    return loaded


@pytest.fixture(scope="package")
def llms() -> Iterator[dict[str, AudioLanguageModel]]:
    made = {kind: make_llm(spec("pocket", decoding=kind), CpuDevice()) for kind in DECODINGS}
    for model in made.values():
        model.load()
    yield made
    for model in made.values():
        model.unload()
        assert not model.loaded
