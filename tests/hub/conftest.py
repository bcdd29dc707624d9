"""A hub on loopback, and this process as a machine that was never online before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from hybridlab.devices import CpuDevice
from hybridlab.models.base import ModelSpec
from hybridlab.models.whisper_transformers import WhisperTransformers
from tests.hub import repositories
from tests.hub.server import Hub, serving


@pytest.fixture(scope="session")
def repository_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    spec = ModelSpec(model="pocket-m", backend="transformers", weights="pocket", dtype="float32")
    model: Any = WhisperTransformers(spec, CpuDevice())
    model.load()
    model.save(root / "saved")
    repositories.whisper(root / repositories.WHISPER, root / "saved")
    repositories.large(root / repositories.LARGE, root / "saved")
    repositories.voxtral(root / repositories.VOXTRAL)
    repositories.ct2(root / repositories.CT2)
    return root


@pytest.fixture(scope="session")
def served(repository_root: Path) -> Iterator[Hub]:
    with serving(repository_root) as hub:
        yield hub


@pytest.fixture
def hub(served: Hub) -> Hub:
    served.reset()
    return served


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub's cache on this machine."""
    return tmp_path / "home" / "hub"


@pytest.fixture
def machine(
    hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """This process talks to that hub, with nothing cached and no token; what a process of its own
    needs for the same."""
    talk_to(hub.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache.parent),
        "HF_HUB_OFFLINE": "0",
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HF_TOKEN": "",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    # the library waits a second before it takes up a line that broke
    patient = SimpleNamespace(**{**vars(file_download.time), "sleep": lambda seconds: None})
    monkeypatch.setattr(file_download, "time", patient)
    return environment


def talk_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads the address when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
