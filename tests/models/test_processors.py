"""The processors built without a hub agree with the libraries that own the vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab import catalog
from hybridlab.devices import CpuDevice
from hybridlab.models import make_asr
from hybridlab.models.processors import (
    hf_to_openai_state_dict,
    openai_tokenizer,
    voxtral_processor,
    whisper_generation_config,
    whisper_processor,
    write_tekken,
)
from tests.models.conftest import spec

VOCABULARIES = (51_864, 51_865, 51_866)
SAMPLES = (
    " three five one",
    "Hello, wörld! 12 人",
    "don't  I'll \n\n x",
    " 🙂 naïve\ttab .",
    "",
)


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocab_size(request: pytest.FixtureRequest) -> int:
    return request.param


# ----------------------------------------------------------------------------------------- Whisper


def theirs_words(vocab_size: int) -> int:
    """Words of openai-whisper's own vocabulary, GPT-2's for English alone."""
    return 50_257 if vocab_size > 51_864 else 50_256


def test_whisper_samples_have_openai_ids(vocab_size: int) -> None:
    ours = whisper_processor(vocab_size=vocab_size, num_mel_bins=80).tokenizer
    theirs = openai_tokenizer(vocab_size)
    assert len(ours) == vocab_size
    for sample in SAMPLES:
        ids = ours.encode(sample, add_special_tokens=False)
        assert ids == theirs.encode(sample)
        assert ours.decode(ids) == sample


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.sampled_from(VOCABULARIES[:2]))
def test_whisper_any_text_has_openai_ids(text: str, vocab_size: int) -> None:
    # both read "<|...|>" in a text in their own way: as a token, or as an error
    text = text.replace("<|", "")
    ours = whisper_processor(vocab_size=vocab_size, num_mel_bins=80).tokenizer
    assert ours.encode(text, add_special_tokens=False) == openai_tokenizer(vocab_size).encode(text)


def test_whisper_every_special_token_has_openai_id(vocab_size: int) -> None:
    ours = whisper_processor(vocab_size=vocab_size, num_mel_bins=80).tokenizer
    specials = openai_tokenizer(vocab_size).special_tokens
    assert len(specials) == vocab_size - theirs_words(vocab_size)
    assert ours.convert_tokens_to_ids(list(specials)) == list(specials.values())


def test_whisper_adds_its_prompt_and_end(vocab_size: int) -> None:
    ours = whisper_processor(vocab_size=vocab_size, num_mel_bins=80).tokenizer
    theirs = openai_tokenizer(vocab_size)
    three = theirs.encode(" three")
    assert ours.encode(" three") == [theirs.sot, theirs.no_timestamps, *three, theirs.eot]


def test_whisper_tokenizer_survives_saving(tmp_path: Path) -> None:
    from transformers import WhisperProcessor

    ours = whisper_processor(vocab_size=51_865, num_mel_bins=128)
    ours.save_pretrained(tmp_path)
    loaded = WhisperProcessor.from_pretrained(tmp_path)
    assert loaded.feature_extractor.feature_size == 128
    for sample in SAMPLES:
        assert loaded.tokenizer.encode(sample) == ours.tokenizer.encode(sample)


def test_generation_config_is_the_released_one(vocab_size: int) -> None:
    config = whisper_generation_config(vocab_size=vocab_size)
    theirs = openai_tokenizer(vocab_size)
    prompt = [config.decoder_start_token_id]
    if config.is_multilingual:
        prompt += [config.lang_to_id["<|en|>"], config.task_to_id["transcribe"]]
        assert sorted(config.lang_to_id.values()) == sorted(theirs.all_language_tokens)
    prompt.append(config.no_timestamps_token_id)
    assert prompt == list(theirs.sot_sequence_including_notimestamps)
    assert config.is_multilingual == hasattr(config, "lang_to_id") == (vocab_size > 51_864)
    assert config.begin_suppress_tokens == [220, theirs.eot]
    # 82 tokens that are no speech in the multilingual vocabulary, 84 in GPT-2's; six tasks
    assert len(config.suppress_tokens) == (88 if config.is_multilingual else 90)
    assert max(config.suppress_tokens) == theirs.no_speech
    words = theirs.encode(" zero one two three four five six seven eight nine 0123456789")
    assert not set(words) & set(config.suppress_tokens)


def test_state_dict_names_fit_openai_whisper() -> None:
    from transformers import WhisperForConditionalGeneration

    from hybridlab.models.weights import whisper_config

    known = catalog.whisper("pocket-s")
    state = WhisperForConditionalGeneration(whisper_config(known)).state_dict()
    model: Any = make_asr(spec("pocket-s", "openai-whisper"), CpuDevice())
    renamed = hf_to_openai_state_dict(state)
    missing, unexpected = model._architecture().load_state_dict(renamed, strict=False)
    assert set(missing) <= {"encoder.positional_embedding"}
    assert not unexpected


# ----------------------------------------------------------------------------------------- Voxtral


def transcription_ids(processor, seconds: float) -> list[int]:
    inputs = processor.apply_transcription_request(
        audio=[np.zeros(round(seconds * 16_000), np.float32)],
        model_id="voxtral",
        language="en",
        sampling_rate=16_000,
        format=["WAV"],
    )
    chunks = inputs["input_features"].shape
    ids: list[int] = inputs["input_ids"][0].tolist()
    assert chunks == (ids.count(24) // 375, 128, 3000)
    return ids


@pytest.mark.parametrize(("seconds", "chunks"), [(1.0, 1), (30.0, 1), (30.5, 2), (65.0, 3)])
def test_voxtral_transcription_prompt(seconds: float, chunks: int) -> None:
    ids = transcription_ids(voxtral_processor(), seconds)
    assert ids == [1, 3, 25, *[24] * (375 * chunks), 4, 9909, 1058, 1262, 34]


def test_voxtral_chat_prompt() -> None:
    from hybridlab.models.voxtral import _audio

    processor = voxtral_processor()
    question = "How many digits are spoken?"
    content = [_audio(np.zeros(16_000, np.float32)), {"type": "text", "text": question}]
    inputs = processor.apply_chat_template([[{"role": "user", "content": content}]])
    text = processor.tokenizer.encode(question, add_special_tokens=False)
    assert inputs["input_ids"][0].tolist() == [1, 3, 25, *[24] * 375, *text, 4]


def test_voxtral_cut_vocabulary_stays_in_range(tmp_path: Path) -> None:
    processor = voxtral_processor(vocab_size=4096, cache_dir=tmp_path)
    ids = transcription_ids(processor, 2.0)
    assert ids[:3] == [1, 3, 25]
    assert (ids[378], ids[-1]) == (4, 34)
    assert max(ids) < 4096
    text = "zero one two three four five six seven eight nine ten"
    spoken = processor.tokenizer.encode(text, add_special_tokens=False)
    assert max(spoken) < 4096
    assert processor.tokenizer.decode(spoken) == text


def test_voxtral_processor_survives_saving_beside_its_config(tmp_path: Path) -> None:
    from transformers import VoxtralProcessor

    from hybridlab.models.weights import voxtral_config

    cache, folder = tmp_path / "cache", tmp_path / "model"
    cache.mkdir()
    processor = voxtral_processor(vocab_size=4096, cache_dir=cache)
    voxtral_config(catalog.voxtral("pocket")).save_pretrained(folder)
    processor.save_pretrained(folder)
    loaded = VoxtralProcessor.from_pretrained(folder)
    assert transcription_ids(loaded, 2.0) == transcription_ids(processor, 2.0)


def test_write_tekken_is_small_when_cut(tmp_path: Path) -> None:
    write_tekken(tmp_path / "tekken.json", vocab_size=4096)
    assert (tmp_path / "tekken.json").stat().st_size < 300_000
