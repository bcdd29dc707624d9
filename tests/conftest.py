"""Fixtures that several floors use. Nothing but the tests marked `real` needs a network."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from hybridlab.simulation import STATE_VARIABLE

if STATE_VARIABLE in os.environ:  # before torch is used
    from hybridlab.simulation import values

    if "PYTEST_XDIST_WORKER" in os.environ:  # a card for each process
        own = f"{os.environ[STATE_VARIABLE]}-{os.environ['PYTEST_XDIST_WORKER']}"
        shutil.copy(os.environ[STATE_VARIABLE], own)
        os.environ[STATE_VARIABLE] = own
    values.install("all")

from hybridlab.audio import Samples
from hybridlab.devices import cuda, visible
from hybridlab.devices import nvml as nvml_module
from hybridlab.processes.fork_server import CaseServer
from hybridlab.processes.imports import without_iri_parsers
from tests.fake_nvml import FakeNvml

with without_iri_parsers():
    import jsonschema  # noqa: F401 - as notebooks and models have it, whatever imports it first

# a shell lets its background jobs, and all that they start, ignore Ctrl-C, which is tested here
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Each release of a device is a full collection, which need not walk all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def case_server() -> Iterator[CaseServer]:
    """One server for all tests, borrowed by everything that runs a case."""
    with CaseServer() as server:
        yield server


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """A card of 16,000 bytes as NVML tells it, whatever this machine has."""
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv(visible.VISIBLE_VARIABLE, raising=False)
    monkeypatch.setattr(cuda, "_BEFORE", {})
    for cached in (visible._visible, nvml_module._handle_of):
        cached.cache_clear()
    yield fake
    for cached in (visible._visible, nvml_module._handle_of):
        cached.cache_clear()


@dataclass
class FakeAllocator:
    """torch's caching allocator in a process that uses CUDA."""

    reserved: int = 0
    allocated: int = 0
    #: As `torch.cuda.memory_snapshot` has them.
    blocks: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> FakeAllocator:
    """CUDA is in use here, as far as the allocator tells."""
    import torch

    fake = FakeAllocator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: fake.reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: fake.allocated)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda index: fake.allocated)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: None)
    segment = {"device": 0, "blocks": fake.blocks}
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: [segment])
    monkeypatch.setattr(torch.backends.cuda, "cublas_workspace_size", lambda: 700)
    return fake


@pytest.fixture
def tone() -> Samples:
    """Two seconds of a quiet tone at 16 kHz."""
    t = np.arange(32_000) / 16_000
    return (0.1 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


@pytest.fixture
def project() -> Path:
    return Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that pytest's processes end together. Tests marked `gpu`
    are skipped, with the reason, where there is no CUDA device."""
    import torch

    slow = {item.path for item in items if "slow" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
