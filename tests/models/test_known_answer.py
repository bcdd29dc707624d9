"""faster-whisper on a card is looked at by use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridlab.audio import load_clips
from hybridlab.cli.doctor_checks import software
from hybridlab.devices import CpuDevice, Device
from hybridlab.devices.cuda import CudaDevice
from hybridlab.errors import UnavailableError
from hybridlab.models import ModelSpec, known_answer, make_asr, whisper_faster
from hybridlab.models.base import SpeechRecognizer

pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")


class Gpu(CpuDevice):
    kind = "cuda"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    whisper_faster.unusable_on_card.cache_clear()
    yield
    whisper_faster.unusable_on_card.cache_clear()


def whisper(device: Device) -> SpeechRecognizer:
    spec = ModelSpec(model="pocket-m", backend="faster-whisper", weights="pocket", dtype="float32")
    return make_asr(spec, device)


def heard(tenant: SpeechRecognizer) -> str:
    return tenant.transcribe([load_clips()[0].samples()], max_new_tokens=64)[0].text


def test_the_program_hears_what_the_tenant_hears(tmp_path: Path) -> None:
    model = whisper_faster._model_in(tmp_path)
    tenant = whisper(CpuDevice())
    tenant.load()
    said = heard(tenant)
    assert said
    assert known_answer.heard(model, "cpu", "cpu") == [said, said]
    assert known_answer.difference([said, said]) == ""


def test_an_empty_or_another_text_is_a_failure() -> None:
    assert known_answer.difference(["a word", ""]) == "it hears '' where the host hears 'a word'"
    assert known_answer.difference(["", ""])
    assert known_answer.difference("RuntimeError: Library libcublas.so.12 is not found")


def test_what_ends_the_program_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no-such-folder" in str(known_answer.heard(tmp_path / "no-such-folder", "cpu"))
    monkeypatch.setattr(known_answer, "TIMEOUT_S", 0.01)
    assert known_answer.heard(tmp_path, "cpu") == "no answer in 0.01 s"


def test_a_card_that_it_cannot_use_is_a_lack_that_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, ...]] = []

    def no_cublas(model: Path, *devices: str) -> str:
        asked.append(devices)
        return "RuntimeError: Library libcublas.so.12 is not found or cannot be loaded"

    monkeypatch.setattr(whisper_faster, "heard", no_cublas)
    monkeypatch.setattr(software, "nvml_facts", lambda: {"driver": "550.54"})
    monkeypatch.setattr(whisper_faster, "nvml_facts", lambda: {"driver": "550.54"})
    tenant = whisper(Gpu())
    for _ in range(2):
        with pytest.raises(
            UnavailableError, match=r"libcublas.so.12 .*ctranslate2 \d.*driver 550.*transformers"
        ):
            tenant.load()
    assert not tenant.loaded
    (row,) = software.faster_whisper()
    assert row.state == "limited"
    assert "libcublas.so.12" in row.detail and "driver 550.54" in row.detail
    assert row.fix.startswith("pip install nvidia-cublas-cu12")
    assert asked == [("cpu", "cuda")]


def test_without_a_card_doctor_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "nvml_facts", lambda: {"reason": "no NVML"})
    assert software.faster_whisper() == []


@pytest.mark.gpu
def test_on_a_gpu_it_says_the_hosts_text_or_is_a_lack() -> None:
    on_host, on_card = whisper(CpuDevice()), whisper(CudaDevice())
    on_host.load()
    try:
        on_card.load()
    except UnavailableError as lack:
        assert "faster-whisper cannot compute on" in str(lack)
        assert software.faster_whisper()[0].state == "limited"
    else:
        assert heard(on_card) == heard(on_host)
        assert software.faster_whisper()[0].state == "ok"
