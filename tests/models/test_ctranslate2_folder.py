"""A folder in CTranslate2's format, as faster-whisper's users have it, is loaded as it is."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab.audio import Clip
from hybridlab.devices import CpuDevice
from hybridlab.errors import WeightsError
from hybridlab.models import ModelSpec, make_asr
from hybridlab.models.base import SpeechRecognizer
from hybridlab.models.ctranslate2_folder import is_ctranslate2, whisper_shape
from hybridlab.models.source import check_source, revision, shape_of, weight_files
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec

pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pocket-m` as CTranslate2's own converter writes it."""
    model: Any = make_asr(spec("pocket-m", "faster-whisper"), CpuDevice())
    found: Path = model.converted(tmp_path_factory.mktemp("ct2"))
    return found


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(converted, tmp_path / "model"))


def local(folder: Path, model: str = "pocket-m", backend: str = "faster-whisper") -> ModelSpec:
    # the stand-in never learned timestamps
    return spec(model, backend, weights="local", path=str(folder), asr_decoding="plain")


def heard(model: SpeechRecognizer, clip: Clip) -> str:
    return model.transcribe([clip.samples()], TranscribeOptions(max_new_tokens=64))[0].text


@pytest.mark.parametrize(
    "lacking", [(), ("tokenizer.json",), ("tokenizer.json", "preprocessor_config.json")]
)
def test_it_says_what_the_same_weights_in_hub_format_say(
    folder: Path,
    lacking: tuple[str, ...],
    clips: list[Clip],
    whisper: Callable[[str], SpeechRecognizer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a conversion; what older folders lack is not looked for on the hub."""
    for name in lacking:
        (folder / name).unlink()
    before = sorted(folder.iterdir())
    model: Any = make_asr(local(folder), CpuDevice())
    said = heard(whisper("faster-whisper"), clips[0])
    monkeypatch.setattr(type(model), "converted", None)
    model.load()
    assert heard(model, clips[0]) == said
    assert sorted(folder.iterdir()) == before


def test_a_folder_in_hub_format_is_still_converted(
    tmp_path: Path, clips: list[Clip], whisper: Callable[[str], SpeechRecognizer]
) -> None:
    whisper("transformers").save(tmp_path)  # type: ignore[attr-defined]
    (tmp_path / "model.bin").write_bytes(b"somebody's copy")
    assert not is_ctranslate2(tmp_path)
    model = make_asr(local(tmp_path), CpuDevice())
    model.load()
    assert heard(model, clips[0]) == heard(whisper("faster-whisper"), clips[0])


def test_its_sizes_are_read_off_the_file_in_every_precision(
    converted: Path, folder: Path, tmp_path: Path
) -> None:
    from ctranslate2.converters import TransformersConverter

    assert whisper_shape(converted) == shape_of("pocket-m")
    for precision in ("int8", "float16"):
        target = tmp_path / precision
        TransformersConverter(str(converted.parent / "source")).convert(
            str(target), quantization=precision
        )
        assert whisper_shape(target) == shape_of("pocket-m")
        check_source(local(target))


def test_its_one_file_is_what_tells_it_from_others(folder: Path) -> None:
    file = folder / "model.bin"
    assert weight_files(local(folder)) == [file]
    first = revision(local(folder))
    assert first == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert revision(local(folder)) != first


@pytest.mark.parametrize("backend", ["openai-whisper", "transformers"])
def test_other_backends_say_who_reads_it(folder: Path, backend: str) -> None:
    with pytest.raises(WeightsError, match="which only faster-whisper reads") as caught:
        check_source(local(folder, backend=backend))
    assert "\n" not in str(caught.value)


def test_another_size_and_a_model_of_another_kind_are_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not a pocket-s: it has \{'d_model': 96"):
        check_source(local(folder, "pocket-s"))
    with pytest.raises(WeightsError, match=r"'vocabulary': 51865\}, tiny\.en has .*51864\}"):
        check_source(local(folder, "tiny.en"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "vocabulary.json").unlink(), "copy the whole folder"),
        (lambda folder: (folder / "config.json").unlink(), "copy the whole folder"),
        (lambda folder: (folder / "model.bin").write_bytes(b""), "convert or download it again"),
        (lambda folder: (folder / "model.bin").write_bytes(b"x" * 999), "is not a Whisper"),
        (lambda folder: _cut(folder / "model.bin", 1000), "it is cut short"),
        (lambda folder: _replace(folder / "model.bin", b"WhisperSpec", b"WenglishOne"), "is not a"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        check_source(local(folder))
    assert "\n" not in str(caught.value)


def _cut(file: Path, n_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:n_bytes])


def _replace(file: Path, old: bytes, new: bytes) -> None:
    file.write_bytes(file.read_bytes().replace(old, new, 1))
