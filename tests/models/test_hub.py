"""The `hub` path itself, offline: folders and files where the libraries' own caches keep them.

The pocket models stand in for the released ones under the released names: what is tested is the
way from a name to a loaded model, which is the same whatever the size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.models.base import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.factory import make_asr
from hybridlab.models.pocket import pocket_dir
from tests.models.conftest import spec

REVISION = "0" * 40
CODE = """
import json, sys
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.models.base import ModelSpec
from hybridlab.models.factory import make_asr, make_llm
make = {"llm": make_llm, "asr": make_asr}[sys.argv[1]]
spec = ModelSpec(model=sys.argv[2], backend="transformers", weights="hub", dtype="float32")
model = make(spec, CpuDevice())
model.load()
assert next(model.module().parameters()).dtype.is_floating_point
print(json.dumps(model.transcribe([load_clips()[0].samples()], max_new_tokens=32)[0].text))
"""


def cached(cache: Path, repository: str, files: Path) -> None:
    """A repository as huggingface_hub's cache holds it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(files, folder / "snapshots" / REVISION)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)


def said_from_cache(cache: Path, role: str, model: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, role, model],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.strip().splitlines()[-1]))


def heard(model: SpeechRecognizer) -> str:
    return model.transcribe([load_clips()[0].samples()], max_new_tokens=32)[0].text


def test_voxtral_by_its_released_name(tmp_path: Path, llms: dict[str, AudioLanguageModel]) -> None:
    cached(tmp_path, catalog.voxtral("mini-3b").hub_id, pocket_dir("pocket"))
    assert said_from_cache(tmp_path, "llm", "mini-3b") == heard(llms["loop"])


def test_whisper_by_its_released_name(
    tmp_path: Path, whisper: Callable[[str], SpeechRecognizer]
) -> None:
    model: Any = whisper("transformers")
    model.save(tmp_path / "files")  # with its tokenizer, as the released folders have it
    cached(tmp_path / "hub", catalog.whisper("tiny").hub_id, tmp_path / "files")
    assert said_from_cache(tmp_path / "hub", "asr", "tiny") == heard(model)


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
    released = make_asr(spec("tiny", "openai-whisper", weights="hub"), CpuDevice())
    released.load()
    samples = load_clips()[0].samples()
    assert released.transcribe([samples]) == model.transcribe([samples])
