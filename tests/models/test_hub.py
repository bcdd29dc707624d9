"""The `hub` path itself, offline: folders and files where the libraries' own caches keep them.

The pocket models stand in for the released ones under the released names: what is tested is the
way from a name to a loaded model, which is the same whatever the size.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import WeightsError
from hybridlab.models import make_asr, make_llm
from hybridlab.models.base import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.pocket import pocket_dir
from hybridlab.models.source import check_source, revision
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec

REVISION = "0" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """huggingface_hub's, with nothing in it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repository: str, files: Path) -> None:
    """A repository as huggingface_hub's cache holds it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(files, folder / "snapshots" / REVISION)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)


def heard(model: SpeechRecognizer) -> str:
    return model.transcribe([load_clips()[0].samples()], TranscribeOptions(max_new_tokens=32))[
        0
    ].text


def heard_from_hub(model: SpeechRecognizer) -> str:
    model.load()
    return heard(model)


def test_voxtral_by_its_released_name(cache: Path, llms: dict[str, AudioLanguageModel]) -> None:
    put(cache, catalog.voxtral("mini-3b").hub_id, pocket_dir("pocket"))
    released = make_llm(spec("mini-3b", weights="hub"), CpuDevice())
    assert heard_from_hub(released) == heard(llms["loop"])


def test_whisper_by_its_released_name(
    cache: Path, tmp_path: Path, whisper: Callable[[str], SpeechRecognizer]
) -> None:
    model: Any = whisper("transformers")
    model.save(tmp_path / "files")  # with its tokenizer, as the released folders have it
    put(cache, catalog.whisper("tiny").hub_id, tmp_path / "files")
    assert heard_from_hub(
        make_asr(spec("tiny", weights="hub", asr_decoding="plain"), CpuDevice())
    ) == heard(model)


def test_openai_whisper_by_its_own_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whisper: Callable[[str], SpeechRecognizer],
) -> None:
    """Its cache holds a checkpoint whose SHA-256 stands in the address it came from."""
    import whisper as library

    model = whisper("openai-whisper")
    module: Any = model.module()
    checkpoint = tmp_path / "whisper" / "tiny.pt"
    checkpoint.parent.mkdir()
    state = {"dims": vars(module.dims), "model_state_dict": module.state_dict()}
    torch.save(state, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(library._ALIGNMENT_HEADS, "tiny", None)  # for word times: another shape
    monkeypatch.setitem(library._MODELS, "tiny", f"https://localhost/{digest}/tiny.pt")
    # the stand-in never learned timestamps
    plain = spec("tiny", "openai-whisper", weights="hub", asr_decoding="plain")
    released = make_asr(plain, CpuDevice())
    released.load()
    samples = load_clips()[0].samples()
    assert released.transcribe([samples]) == model.transcribe([samples])


def test_weights_are_told_apart_by_commit_hash_or_seed(cache: Path, tmp_path: Path) -> None:
    released = spec("mini-3b", weights="hub")
    assert revision(released) is None  # nothing is there yet
    put(cache, catalog.voxtral("mini-3b").hub_id, pocket_dir("pocket"))
    assert revision(released) == f"commit {REVISION}"
    assert revision(spec("tiny", weights="random")) == "seed 0"
    own = (pocket_dir("pocket-s") / "model.safetensors").read_bytes()
    assert revision(spec("pocket-s")) == f"sha256:{hashlib.sha256(own).hexdigest()}"
    file = tmp_path / "model.safetensors"
    local = spec("tiny", weights="local", path=str(tmp_path))
    for content in (b"one", b"other"):  # a file that changed is read anew
        file.write_bytes(content)
        assert revision(local) == f"sha256:{hashlib.sha256(content).hexdigest()}"
    # openai-whisper's addresses hold the sum that its library checks
    address = revision(spec("base", "openai-whisper", weights="hub"))
    assert address == "sha256:ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("transformers", "generation_config.json"),
        ("transformers", "preprocessor_config.json"),
        ("faster-whisper", "preprocessor_config.json"),
        ("openai-whisper", "config.json"),
    ],
)
def test_a_folder_that_lacks_a_description_is_refused_by_its_name(
    tmp_path: Path, backend: str, name: str
) -> None:
    """Not by what a library makes of it halfway through a load."""
    pytest.importorskip(catalog.backend(backend).module)
    folder = shutil.copytree(pocket_dir("pocket-s"), tmp_path / "folder")
    local = spec("pocket-s", backend, weights="local", path=str(folder))
    check_source(local)
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")) as caught:
        check_source(local)
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_a_shard_names_it(tmp_path: Path) -> None:
    """By the number that the others' names tell."""
    folder = shutil.copytree(pocket_dir("pocket-s"), tmp_path / "folder")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"lacks model-00002-of-00003\.safetensors, model-00003"):
        check_source(spec("pocket-s", weights="local", path=str(folder)))
