"""Measured quality of the pocket models on voices that training never heard.

Everything goes through the lab's own models, so what is measured is what a reader gets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hybridlab.analysis.stats import word_error_rate
from hybridlab.devices import CpuDevice
from hybridlab.models.base import AudioLanguageModel, ModelSpec, SpeechRecognizer
from hybridlab.models.factory import make_asr, make_llm
from hybridlab.models.transcription import TranscribeOptions
from tools.pocket.speech import (
    QUESTIONS,
    Utterance,
    Word,
    answer,
    long_utterance,
    utterance,
)

LONG_SHARE = 0.25
LONGEST_S = 80.0
BATCH = 8
#: Beyond this an utterance is a long one: more than one window.
WINDOW_S = 30.0


def held_out_clips(bank: dict[str, list[Word]], *, count: int, seed: int = 1000) -> list[Utterance]:
    """Clips of up to 28 s, and a quarter of 31 to 80 s, drawn by seed alone."""
    rng = np.random.default_rng(seed)
    clips = []
    for number in range(count):
        if number % round(1 / LONG_SHARE) == 0:
            clips.append(long_utterance(bank, rng, shortest_s=WINDOW_S + 1, longest_s=LONGEST_S))
        else:
            clips.append(utterance(bank, rng))
    return clips


def is_long(clip: Utterance) -> bool:
    return clip.samples.size > WINDOW_S * 16_000


def evaluate_whisper(folder: Path, name: str, clips: list[Utterance]) -> dict[str, float]:
    """WER through both libraries, and the share of clips on which they say the same."""
    said = {}
    for backend in ("openai-whisper", "transformers"):
        spec = ModelSpec(
            model=name, backend=backend, weights="local", dtype="float32", path=str(folder)
        )
        model = make_asr(spec, CpuDevice())
        model.load()
        said[backend] = _transcripts(model, clips)
        model.unload()
    references = [clip.text for clip in clips]
    equal = np.mean([a == b for a, b in zip(*said.values(), strict=True)])
    return {
        **{f"wer_{backend}": word_error_rate(references, texts) for backend, texts in said.items()},
        "output_unchanged": float(equal),
        "clips": len(clips),
    }


def evaluate_voxtral(folder: Path, clips: list[Utterance]) -> dict[str, Any]:
    """WER, and the share of right answers per kind of question, short and long clips apart."""
    spec = ModelSpec(
        model="pocket", backend="transformers", weights="local", dtype="float32", path=str(folder)
    )
    model = make_llm(spec, CpuDevice())
    model.load()
    figures: dict[str, Any] = {}
    for label, own in (
        ("short", [c for c in clips if not is_long(c)]),
        ("long", [c for c in clips if is_long(c)]),
    ):
        texts = _transcripts(model, own)
        figures[label] = {
            "clips": len(own),
            "wer": word_error_rate([c.text for c in own], texts),
            **{kind: _right_answers(model, own, kind) for kind in QUESTIONS},
        }
    return figures


def _transcripts(model: SpeechRecognizer, clips: list[Utterance]) -> list[str]:
    """Short clips in batches; a long one by itself, since its windows are a batch already."""
    texts: dict[int, str] = {}
    for group in _groups(clips):
        said = model.transcribe(
            [clips[i].samples for i in group], TranscribeOptions(max_new_tokens=64)
        )
        texts |= {i: text.text for i, text in zip(group, said, strict=True)}
    return [texts[i] for i in range(len(clips))]


def _groups(clips: list[Utterance]) -> list[list[int]]:
    """Indices of short clips, a batch each, then of long ones, one each."""
    short = [i for i, clip in enumerate(clips) if not is_long(clip)]
    groups = [short[i : i + BATCH] for i in range(0, len(short), BATCH)]
    return groups + [[i] for i, clip in enumerate(clips) if is_long(clip)]


def _right_answers(model: AudioLanguageModel, clips: list[Utterance], kind: str) -> float:
    question = QUESTIONS[kind][0]
    right = []
    for group in _groups(clips):
        own = [clips[i] for i in group]
        given = model.answer([c.samples for c in own], [question] * len(own), max_new_tokens=8)
        right += [
            text.text == answer(kind, list(clip.words))
            for text, clip in zip(given, own, strict=True)
        ]
    return float(np.mean(right))
