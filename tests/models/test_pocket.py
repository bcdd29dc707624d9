"""The shipped pocket models say and answer what the shipped clips hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab import catalog
from hybridlab.analysis.stats import word_error_rate
from hybridlab.audio import CLIPS_DIR, Clip, load_clips
from hybridlab.devices import CpuDevice
from hybridlab.errors import ParameterError
from hybridlab.models.base import AudioLanguageModel, SpeechRecognizer
from hybridlab.models.factory import make_asr
from hybridlab.models.pocket import NAMES, WEIGHTS_DIR, pocket_dir
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec
from tools.pocket.speech import (
    DIGITS,
    HELD_OUT_VOICES,
    QUESTIONS,
    TRAINING_VOICES,
    answer,
)

MOST_WEIGHT_BYTES = 25_000_000
MOST_CLIP_BYTES = 3_000_000
MOST_WER = 0.03
LEAST_RIGHT = 0.95

CLIPS = load_clips()
SHORT = [clip for clip in CLIPS if clip.audio_s <= catalog.WINDOW_S]
LONG = [clip for clip in CLIPS if clip.audio_s > catalog.WINDOW_S]


def rows() -> list[dict[str, Any]]:
    lines = (CLIPS_DIR / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------- files, no torch


def test_folders_are_complete_and_small() -> None:
    for name in NAMES:
        files = {file.name for file in pocket_dir(name).iterdir()}
        assert {"config.json", "model.safetensors", "README.md", "metrics.json"} <= files
    assert size(WEIGHTS_DIR) <= MOST_WEIGHT_BYTES
    assert size(CLIPS_DIR) <= MOST_CLIP_BYTES


def test_bad_name_lists_good_ones() -> None:
    with pytest.raises(ParameterError, match=r"did you mean .pocket-"):
        pocket_dir("pocket-n")


def test_clips_are_short_and_long_from_held_out_voices() -> None:
    assert len(SHORT) >= 10
    assert len(LONG) >= 4
    assert not set(HELD_OUT_VOICES) & set(TRAINING_VOICES)
    assert {row["voice"] for row in rows()} <= set(HELD_OUT_VOICES)
    for row, clip in zip(rows(), CLIPS, strict=True):
        assert clip.audio_s == pytest.approx(row["duration_s"], abs=1e-3)


def test_manifest_answers_follow_from_the_text() -> None:
    for row in rows():
        assert {asked["kind"] for asked in row["questions"]} == set(QUESTIONS)
        for asked in row["questions"]:
            assert asked["question"] == QUESTIONS[asked["kind"]][0]
            assert asked["answer"] == answer(asked["kind"], row["text"].split())


# ---------------------------------------------------------------------------------------- Whisper


def transcripts(model: SpeechRecognizer, clips: list[Clip]) -> list[str]:
    said = model.transcribe(
        [clip.samples() for clip in clips], TranscribeOptions(max_new_tokens=32)
    )
    return [text.text for text in said]


def test_pocket_m_transcribes_the_clips(whisper: Callable[[str], SpeechRecognizer]) -> None:
    references = [clip.text or "" for clip in SHORT]
    assert word_error_rate(references, transcripts(whisper("transformers"), SHORT)) <= MOST_WER


def test_pocket_s_speaks_digits() -> None:
    model = make_asr(spec("pocket-s"), CpuDevice())
    model.load()
    for text in transcripts(model, SHORT[:2]):
        assert set(text.split()) <= set(DIGITS)


# ---------------------------------------------------------------------------------------- Voxtral


#: The kinds of question that pocket Voxtral is held to; counting is not one of them.
ANSWERED = ("first", "last", "largest", "smallest")


def test_voxtral_transcribes_and_answers_short_and_long_clips(
    llms: dict[str, AudioLanguageModel],
) -> None:
    texts, right = [], []
    for clip in CLIPS:
        prefilled = llms["loop"].prefill(clip.samples())
        texts.append(prefilled.transcribe(TranscribeOptions(max_new_tokens=32)).text)
        for question in clip.questions:
            if question.kind in ANSWERED:
                given = prefilled.answer(question.text, max_new_tokens=8).text
                right.append(given == question.answer)
    assert word_error_rate([clip.text or "" for clip in CLIPS], texts) <= MOST_WER
    assert len(right) == len(CLIPS) * len(ANSWERED)
    assert sum(right) / len(right) >= LEAST_RIGHT


def test_the_card_says_that_words_and_four_kinds_of_answers_are_right() -> None:
    """On 240 held-out clips, measured when the model was made."""
    figures = json.loads((pocket_dir("pocket") / "metrics.json").read_text())["figures"]
    for length in ("short", "long"):
        assert figures[length]["wer"] <= MOST_WER, length
        for kind in ANSWERED:
            assert figures[length][kind] >= LEAST_RIGHT, (length, kind)
