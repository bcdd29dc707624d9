"""openai-whisper's checkpoints: by address, summed, taken up where they broke, never half."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper as library

from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import WeightsError
from hybridlab.models import make_asr, openai_download
from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import openai_file
from hybridlab.models.provision import fetch
from hybridlab.models.source import check_source, revision
from tests.hub.server import Fault, Hub
from tests.hub.test_provision import hub_spec

SPEC = hub_spec(backend="openai-whisper")


@pytest.fixture(scope="module")
def checkpoint(repository_root: Path) -> Path:
    """pocket-m as the library keeps its own."""
    file = repository_root / "openai-whisper" / "tiny.pt"
    file.parent.mkdir(exist_ok=True)
    pocket = ModelSpec(
        model="pocket-m", backend="openai-whisper", weights="pocket", dtype="float32"
    )
    model: Any = make_asr(pocket, CpuDevice())
    model.load()
    module = model.module()
    torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, file)
    return file


@pytest.fixture(autouse=True)
def address(
    hub: Hub, machine: dict[str, str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    url = f"{hub.url}/openai/{digest}/tiny.pt"
    monkeypatch.setitem(library._MODELS, "tiny", url)
    monkeypatch.setitem(library._ALIGNMENT_HEADS, "tiny", None)  # for word times: another shape
    monkeypatch.setattr(openai_download, "PAUSE_S", 0.0)
    return url


def test_it_comes_once_and_loads_by_its_path(hub: Hub, address: str) -> None:
    (found,) = fetch([SPEC])
    assert found.repository == address
    hub.requests.clear()
    assert fetch([SPEC]) == [found]
    model = make_asr(SPEC, CpuDevice())
    model.load()
    assert model.transcribe([load_clips()[0].samples()])[0].text
    assert hub.requests == []
    assert revision(SPEC) == f"sha256:{found.commit}"


def test_a_line_that_breaks_is_taken_up(hub: Hub, address: str, checkpoint: Path) -> None:
    hub.faults.append(Fault("GET /openai/", cut_after=5_000_000, times=1))
    fetch([SPEC])
    assert [one for one in hub.ranges if one] == ["bytes=5000000-"]
    assert openai_file(address).read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize("whole", [False, True])
def test_what_another_process_left_is_taken_up(
    hub: Hub, address: str, checkpoint: Path, whole: bool
) -> None:
    """Also where it ended between the last byte and the sum."""
    content = checkpoint.read_bytes()
    partial = openai_file(address).with_name("tiny.pt.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content if whole else content[:1_000_000])
    fetch([SPEC])
    assert hub.ranges[-1] == f"bytes={len(content) if whole else 1_000_000}-"
    assert openai_file(address).read_bytes() == content
    assert not partial.exists()


def test_half_a_file_under_the_final_name_is_none(address: str, checkpoint: Path) -> None:
    """As the library's own download leaves it."""
    file = openai_file(address)
    file.parent.mkdir(parents=True)
    file.write_bytes(checkpoint.read_bytes()[:3_000_000])
    with pytest.raises(WeightsError, match=r"openai-whisper's tiny\.pt is not on this machine yet"):
        check_source(SPEC)
    fetch([SPEC])
    assert file.read_bytes() == checkpoint.read_bytes()


def test_another_sum_is_refused_and_nothing_is_left(hub: Hub, address: str) -> None:
    hub.faults.append(Fault("GET /openai/", corrupt=True))
    with pytest.raises(WeightsError, match="arrived with another SHA-256"):
        fetch([SPEC])
    assert list(openai_file(address).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("GET /openai/", cut_after=0), "the line broke"),
        (Fault("/openai/", status=503), "answers with status 503"),
        (Fault("/openai/", status=404), r"is not there \(404\)"),
        (Fault("/openai/", drop=True), "closed without an answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_are_one_line(hub: Hub, fault: Fault, said: str) -> None:
    hub.faults.append(fault)
    with pytest.raises(WeightsError, match=f"openai-whisper's tiny.pt.*{said}") as caught:
        fetch([SPEC])
    assert "\n" not in str(caught.value)


def test_a_proxy_is_used(hub: Hub, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub stands in for one that fetches by name: it is asked for the whole address."""
    elsewhere = address.replace(hub.url, "http://models.invalid")
    monkeypatch.setitem(library._MODELS, "tiny", elsewhere)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    fetch([SPEC])
    assert f"GET {elsewhere}" in hub.requests


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(machine: dict[str, str]) -> None:
    folder = Path(machine["XDG_CACHE_HOME"])
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch([SPEC])
