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
from pathlib import Path

import pytest
import torch

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.models.base import ModelSpec
from hybridlab.models.factory import make_asr
from hybridlab.models.pocket import pocket_dir
from hybridlab.models.whisper_transformers import WhisperTransformers

REVISION = "0" * 40
CODE = """
import json, sys
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice
from hybridlab.models.base import ModelSpec
from hybridlab.models.factory import make_asr, make_llm
make = {"llm": make_llm, "asr": make_asr}[sys.argv[1]]
spec = ModelSpec(model=sys.argv[2], backend="transformers", weights="hub", dtype="float32")
tenant = make(spec, CpuDevice())
tenant.load()
assert next(tenant.module().parameters()).dtype.is_floating_point
print(json.dumps(tenant.transcribe([load_clips()[0].samples()], max_new_tokens=32)[0].text))
"""


def cached(cache: Path, repository: str, files: Path) -> None:
    """A repository as huggingface_hub's cache holds it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(files, folder / "snapshots" / REVISION)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(REVISION)


def said_from_cache(cache: Path, tenant: str, model: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", CODE, tenant, model],
        env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout.strip().splitlines()[-1]))


def said_by_pocket(model: str) -> str:
    spec = ModelSpec(model=model, backend="transformers", weights="pocket", dtype="float32")
    if model == "pocket":
        from hybridlab.models.factory import make_llm

        tenant = make_llm(spec, CpuDevice())
    else:
        tenant = make_asr(spec, CpuDevice())  # type: ignore[assignment]
    tenant.load()
    return tenant.transcribe([load_clips()[0].samples()], max_new_tokens=32)[0].text


def test_voxtral_by_its_released_name(tmp_path: Path) -> None:
    cached(tmp_path, catalog.voxtral("mini-3b").hub_id, pocket_dir("pocket"))
    assert said_from_cache(tmp_path, "llm", "mini-3b") == said_by_pocket("pocket")


def test_whisper_by_its_released_name(tmp_path: Path) -> None:
    spec = ModelSpec(model="pocket-m", backend="transformers", weights="pocket", dtype="float32")
    tenant = WhisperTransformers(spec, CpuDevice())
    tenant.load()
    tenant.save(tmp_path / "files")  # with its tokenizer, as the released folders have it
    cached(tmp_path / "hub", catalog.whisper("tiny").hub_id, tmp_path / "files")
    assert said_from_cache(tmp_path / "hub", "asr", "tiny") == said_by_pocket("pocket-m")


def test_openai_whisper_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cache holds a checkpoint whose SHA-256 stands in the address it came from."""
    import whisper

    spec = ModelSpec(model="pocket-m", backend="openai-whisper", weights="pocket", dtype="float32")
    tenant = make_asr(spec, CpuDevice())
    tenant.load()
    module = tenant.module()
    assert module is not None
    checkpoint = tmp_path / "whisper" / "tiny.pt"
    checkpoint.parent.mkdir()
    dims = vars(module.dims)
    torch.save({"dims": dims, "model_state_dict": module.state_dict()}, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny", None)  # for word times: of another shape
    monkeypatch.setitem(whisper._MODELS, "tiny", f"https://localhost/{digest}/tiny.pt")
    released = ModelSpec(model="tiny", backend="openai-whisper", weights="hub", dtype="float32")
    loaded = make_asr(released, CpuDevice())
    loaded.load()
    samples = load_clips()[0].samples()
    assert loaded.transcribe([samples]) == tenant.transcribe([samples])
