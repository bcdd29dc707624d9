"""The pocket Voxtral with each way of decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from hybridlab.catalog import DECODINGS
from hybridlab.devices import CpuDevice
from hybridlab.models import ModelSpec, make_llm
from hybridlab.models.base import AudioLanguageModel

SPEC = ModelSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32")


@pytest.fixture(scope="module")
def llms() -> Iterator[dict[str, AudioLanguageModel]]:
    made = {kind: make_llm(replace(SPEC, decoding=kind), CpuDevice()) for kind in DECODINGS}
    for tenant in made.values():
        tenant.load()
    yield made
    for tenant in made.values():
        tenant.unload()
