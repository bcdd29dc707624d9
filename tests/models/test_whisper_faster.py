"""faster-whisper on a card is looked at by use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridlab.audio import load_clips
from hybridlab.cli import doctor
from hybridlab.devices import CpuDevice, Device
from hybridlab.devices import nvml as nvml_module
from hybridlab.devices.cuda import CudaDevice
from hybridlab.errors import UnavailableError
from hybridlab.models import make_asr, whisper_faster
from hybridlab.models.base import SpeechRecognizer
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec

pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")


class Gpu(CpuDevice):
    is_host = False


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    whisper_faster.unusable_on_card.cache_clear()
    yield
    whisper_faster.unusable_on_card.cache_clear()


def on(device: Device) -> SpeechRecognizer:
    return make_asr(spec("pocket-m", "faster-whisper"), device)


def transcript(model: SpeechRecognizer) -> str:
    return model.transcribe([load_clips()[0].samples()], TranscribeOptions(max_new_tokens=64))[
        0
    ].text


def test_the_program_transcribes_as_the_model_does_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whisper: Callable[[str], SpeechRecognizer]
) -> None:
    model: Any = on(CpuDevice())
    said = transcript(whisper("faster-whisper"))
    assert said
    found = whisper_faster.transcripts(model.converted(tmp_path), "cpu", "cpu")
    assert found == [said, said]
    monkeypatch.setattr(whisper_faster, "PROBE_TIMEOUT_S", 0.01)
    assert whisper_faster.transcripts(tmp_path, "cpu") == "no answer in 0.01 s"
    for program, reason in (
        ("echo note >&2; echo no cuBLAS >&2; exit 3", "no cuBLAS"),
        ("kill -ABRT $$", "exit status -6"),
    ):
        (script := tmp_path / "program").write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(script))
        monkeypatch.setattr(whisper_faster, "PROBE_TIMEOUT_S", 20)
        assert whisper_faster.transcripts(tmp_path, "cpu") == reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["a word", "a word"], ""),
        (["a word", ""], "it transcribes '' where the host transcribes 'a word'"),
        (["", ""], "it transcribes ''"),
    ],
)
def test_an_empty_or_another_text_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, said: list[str], reason: str
) -> None:
    monkeypatch.setattr(whisper_faster, "transcripts", lambda *_: said)
    assert whisper_faster.unusable_on_card().startswith(reason)
    assert bool(whisper_faster.unusable_on_card()) == bool(reason)


def test_a_card_that_it_cannot_use_is_a_lack_that_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, ...]] = []

    def no_cublas(model: Path, *devices: str) -> str:
        asked.append(devices)
        return "RuntimeError: Library libcublas.so.12 is not found or cannot be loaded"

    monkeypatch.setattr(whisper_faster, "transcripts", no_cublas)
    monkeypatch.setattr(nvml_module, "nvml_facts", lambda: {"driver": "550.54"})
    monkeypatch.setattr(whisper_faster, "nvml_facts", lambda: {"driver": "550.54"})
    model = on(Gpu())
    for _ in range(2):
        with pytest.raises(
            UnavailableError, match=r"libcublas.so.12 .*ctranslate2 \d.*driver 550.*transformers"
        ):
            model.load()
    assert not model.loaded
    (row,) = doctor.faster_whisper()
    assert row.state == "limited"
    assert "libcublas.so.12" in row.detail and "driver 550.54" in row.detail
    assert row.fix.startswith("pip install nvidia-cublas-cu12")
    assert asked == [("cpu", "cuda")]


def test_without_a_card_doctor_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_module, "nvml_facts", lambda: {"reason": "no NVML"})
    assert list(doctor.faster_whisper()) == []


@pytest.mark.gpu
def test_on_a_gpu_it_says_the_hosts_text_or_is_a_lack() -> None:
    on_host, on_card = on(CpuDevice()), on(CudaDevice())
    on_host.load()
    try:
        on_card.load()
    except UnavailableError as lack:
        assert "faster-whisper cannot compute on" in str(lack)
        assert next(doctor.faster_whisper()).state == "limited"
    else:
        assert transcript(on_card) == transcript(on_host)
        assert next(doctor.faster_whisper()).state == "ok"
