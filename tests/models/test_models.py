"""Models through their real libraries: random, local and pocket weights, no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hybridlab import catalog
from hybridlab.audio import Clip
from hybridlab.devices import CpuDevice
from hybridlab.errors import ParameterError, UnavailableError, WeightsError
from hybridlab.models import make_asr, make_llm
from hybridlab.models.base import SpeechRecognizer, resolve_dtype
from hybridlab.models.processors import openai_tokenizer
from hybridlab.models.source import check_source
from hybridlab.models.transcription import TranscribeOptions
from hybridlab.models.weights import fill_random
from tests.models.conftest import spec

BACKENDS = ("openai-whisper", "transformers", "faster-whisper")


@pytest.fixture(scope="module")
def said(clips: list[Clip], whisper: Callable[[str], SpeechRecognizer]) -> dict[str, list[str]]:
    """What each backend makes of every shipped clip."""
    return {backend: [heard(whisper(backend), clip) for clip in clips] for backend in BACKENDS}


def heard(model: SpeechRecognizer, clip: Clip) -> str:
    return model.transcribe([clip.samples()], TranscribeOptions(max_new_tokens=64))[0].text


def test_backends_agree_on_every_shipped_clip(said: dict[str, list[str]]) -> None:
    assert said["openai-whisper"] == said["transformers"] == said["faster-whisper"]


@pytest.mark.parametrize("backend", ["openai-whisper", "transformers"])
def test_a_batch_says_what_its_clips_say_alone(
    backend: str,
    clips: list[Clip],
    said: dict[str, list[str]],
    whisper: Callable[[str], SpeechRecognizer],
) -> None:
    model = whisper(backend)
    model.drain_spans()
    batch = model.transcribe(
        [clip.samples() for clip in clips[:4]], TranscribeOptions(max_new_tokens=64)
    )
    assert [text.text for text in batch] == said[backend][:4]
    phases = [span.phase for span in model.drain_spans()]
    assert phases == ["prepare", "encode", "prefill", "decode"]


def test_beams_of_a_batch_say_what_its_clips_say_alone(
    clips: list[Clip], whisper: Callable[[str], SpeechRecognizer]
) -> None:
    """openai-whisper itself lets the beams of one window share the encoder's output."""
    model = whisper("openai-whisper")
    batch = [clip.samples() for clip in clips[:2]]
    together = model.transcribe(batch, TranscribeOptions(beams=2))
    assert [row.tokens for row in together] == [
        model.transcribe([samples], TranscribeOptions(beams=2))[0].tokens for samples in batch
    ]


def test_beams_of_transformers_are_scored_by_the_audio_of_their_window(
    clips: list[Clip], whisper: Callable[[str], SpeechRecognizer]
) -> None:
    """`generate` puts a copy for each beam into what the encoder gave, and alone they share it."""
    model: Any = whisper("transformers")
    batch = [clip.samples() for clip in clips[:3]]
    asked: Any = {"options": TranscribeOptions(language="en", max_new_tokens=64, beams=3)}
    with torch.inference_mode():
        encoded = model._encode(batch)
        together = model._decode(encoded, [0, 1, 2], ["en"] * 3, **asked, ends=None)
        again = [model._decode(encoded, [row], ["en"], **asked, ends=None)[0] for row in range(3)]
        alone = [
            model._decode(model._encode([one]), [0], ["en"], **asked, ends=None)[0] for one in batch
        ]
    assert [one.tokens for one in together] == [one.tokens for one in again]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    for found in (together, again):
        assert [one.avg_logprob for one in found] == pytest.approx(
            [one.avg_logprob for one in alone], abs=1e-3
        )


def test_openai_transcribe_itself_says_the_same(
    clips: list[Clip], said: dict[str, list[str]], whisper: Callable[[str], SpeechRecognizer]
) -> None:
    """`whisper.transcribe` pads in the mel domain; the model must not depend on its own path."""
    from whisper import transcribe

    options = {"language": "en", "temperature": 0.0, "without_timestamps": True, "fp16": False}
    for clip, text in zip(clips, said["openai-whisper"], strict=True):
        if clip.audio_s <= 30:
            result = transcribe(whisper("openai-whisper").module(), clip.samples(), **options)
            assert result["text"].strip() == text


@pytest.mark.parametrize("backend", ["openai-whisper", "transformers"])
def test_random_weights_do_fixed_work_in_the_true_architecture(backend: str) -> None:
    model = make_asr(spec("tiny", backend, weights="random"), CpuDevice())
    model.load()
    module = model.module()
    assert module is not None
    expected = catalog.whisper("tiny").parameters
    if backend == "openai-whisper":
        expected -= 1500 * 384  # its encoder positions are a buffer
    assert sum(p.numel() for p in module.parameters()) == expected
    quiet = np.full(16_000, 0.01, np.float32)
    (text,) = model.transcribe([quiet], TranscribeOptions(max_new_tokens=5))
    assert len(text.tokens) == 5
    again = make_asr(spec("tiny", backend, weights="random"), CpuDevice())
    again.load()
    assert again.transcribe([quiet], TranscribeOptions(max_new_tokens=5))[0].tokens == text.tokens


@pytest.mark.parametrize("backend", BACKENDS)
def test_english_only_weights_are_asked_in_no_language(backend: str) -> None:
    if backend == "faster-whisper":
        pytest.importorskip("faster_whisper", reason="the extra ct2 is not installed")
    model = make_asr(spec("tiny.en", backend, weights="random"), CpuDevice())
    model.load()
    quiet = np.full(16_000, 0.01, np.float32)
    (text,) = model.transcribe([quiet], TranscribeOptions(language="", max_new_tokens=6))
    assert model.transcribe([quiet], TranscribeOptions(max_new_tokens=6)) == [text]
    assert text.tokens and max(text.tokens) < 50_256  # GPT-2's words
    assert text.text == openai_tokenizer(51_864).decode(text.tokens).strip()
    assert len(text.tokens) == 6
    with pytest.raises(ParameterError, match=r"tiny\.en does not know German"):
        model.transcribe([quiet], TranscribeOptions(language="de"))


@pytest.mark.parametrize("backend", ["openai-whisper", "transformers"])
def test_the_prompt_of_an_english_only_model_is_the_library_s(backend: str) -> None:
    """`<|startoftranscript|><|notimestamps|>`: neither a language nor a task."""
    seen: list[list[int]] = []
    model = make_asr(spec("tiny.en", backend, weights="random"), CpuDevice())
    model.load()
    module = model.module()
    assert module is not None
    decoder = module.decoder if backend == "openai-whisper" else module.model.decoder

    def note(_: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        seen.append(ids[0].tolist())

    decoder.register_forward_pre_hook(note, with_kwargs=True)
    quiet = np.full(16_000, 0.01, np.float32)
    model.transcribe([quiet], TranscribeOptions(max_new_tokens=2))
    assert seen[0] == list(openai_tokenizer(51_864).sot_sequence_including_notimestamps)


def test_random_voxtral_in_miniature_runs_both_jobs() -> None:
    model = make_llm(spec("pocket", weights="random"), CpuDevice())
    model.load()
    samples = np.full(40 * 16_000, 0.01, np.float32)
    model.transcribe([samples], TranscribeOptions(max_new_tokens=3))
    model.answer([samples], ["Why?"], max_new_tokens=4)
    phases = [span.phase for span in model.drain_spans()]
    assert phases == ["prepare", "encode", "prefill", "decode"] * 2


def test_random_values_are_seeded_finite_and_touch_everything() -> None:
    one, two, three = (torch.nn.Linear(300, 7000) for _ in range(3))
    for module, seed in ((one, 1), (two, 1), (three, 2)):
        fill_random(module, seed=seed)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, three.weight)
    assert one.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (one.weight[-1] != 0).any()


@pytest.mark.parametrize("backend", ["openai-whisper", "transformers"])
def test_a_folder_in_hub_format_loads_as_local(
    tmp_path: Path,
    backend: str,
    clips: list[Clip],
    said: dict[str, list[str]],
    whisper: Callable[[str], SpeechRecognizer],
) -> None:
    whisper("transformers").save(tmp_path)  # type: ignore[attr-defined]
    local = spec("pocket-m", backend, weights="local", path=str(tmp_path), asr_decoding="plain")
    model = make_asr(local, CpuDevice())
    model.load()
    assert heard(model, clips[0]) == said[backend][0]
    model.unload()
    assert not model.loaded


def test_foreign_and_unsafe_folders_are_refused(tmp_path: Path) -> None:
    local = {"weights": "local", "path": str(tmp_path)}
    with pytest.raises(WeightsError, match=r"no config\.json"):
        check_source(spec("tiny", **local))
    (tmp_path / "config.json").write_text(
        '{"d_model": 96, "encoder_layers": 3, "num_mel_bins": 128}'
    )
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"no \.safetensors"):
        check_source(spec("tiny", **local))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="is not a tiny"):
        check_source(spec("tiny", **local))


def test_dtypes_are_resolved_and_never_emulated() -> None:
    cpu = CpuDevice()
    assert resolve_dtype("auto", backend="transformers", device=cpu, role="asr") == "float32"
    with pytest.raises(UnavailableError, match="no float16 in hardware"):
        resolve_dtype("float16", backend="transformers", device=cpu, role="asr")


def test_float16_of_openai_keeps_its_norms() -> None:
    from hybridlab.models.whisper_openai import half_with_float_norms

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    half_with_float_norms(module)
    assert module[0].weight.dtype == torch.float16
    assert module[1].weight.dtype == torch.float32
