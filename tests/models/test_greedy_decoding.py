"""Every way to decode says the same; a prefix prefilled once serves every job behind it."""

from __future__ import annotations

from typing import Any

import pytest

from hybridlab.audio import Clip
from hybridlab.catalog import DECODINGS
from hybridlab.devices import CpuDevice
from hybridlab.errors import AudioError
from hybridlab.models import make_llm
from hybridlab.models.base import AudioLanguageModel, GenerationResult
from hybridlab.models.transcription import TranscribeOptions
from tests.models.conftest import spec

MOST = 32
LIMITED = TranscribeOptions(max_new_tokens=MOST)


def both_jobs(llm: AudioLanguageModel, clip: Clip) -> list[GenerationResult]:
    samples, question = [clip.samples()], clip.questions[0].text
    return [
        llm.transcribe(samples, LIMITED)[0],
        llm.answer(samples, [question], max_new_tokens=MOST)[0],
    ]


def test_every_way_says_what_generate_says_and_one_prefix_serves_every_job(
    llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    for clip in clips[::2]:  # short and long ones
        transcript, answer = said = both_jobs(llms["generate"], clip)
        assert both_jobs(llms["loop"], clip) == both_jobs(llms["static"], clip) == said, clip.id
        prefilled = llms["loop"].prefill(clip.samples())
        question = clip.questions[0].text
        assert prefilled.answer(question, max_new_tokens=MOST) == answer
        assert prefilled.transcribe(LIMITED) == transcript
        assert prefilled.answer(question, max_new_tokens=MOST) == answer  # nothing was left behind


def test_a_padded_batch_says_what_generate_says(
    llms: dict[str, AudioLanguageModel], clips: list[Clip]
) -> None:
    batch = [clip.samples() for clip in clips[:3]]
    questions = ["Which digit is the largest?", "hm", clips[2].questions[0].text]
    said = [llms[kind].answer(batch, questions, max_new_tokens=MOST) for kind in DECODINGS]
    assert said[0] == said[1] == said[2]


def test_the_prefix_is_encoded_once(llms: dict[str, AudioLanguageModel], clips: list[Clip]) -> None:
    llm = llms["loop"]
    llm.drain_spans()
    prefilled = llm.prefill(clips[0].samples())
    prefilled.transcribe(LIMITED)
    prefilled.answer(clips[0].questions[0].text, max_new_tokens=MOST)
    phases = [span.phase for span in llm.drain_spans()]
    assert phases.count("encode") == 1
    assert phases.count("prefill") == 3  # the audio's, and one of a few tokens for each job
    assert phases.count("decode") == 2


@pytest.mark.parametrize("language", ["en", "fr", ""])
def test_prompts_behind_the_prefix_are_the_processors_own(
    language: str, llms: dict[str, AudioLanguageModel], clips: list[Clip], monkeypatch: Any
) -> None:
    llm: Any = llms["loop"]
    samples = clips[0].samples()
    prefilled: Any = llm.prefill(samples)
    asked: list[list[int]] = []
    monkeypatch.setattr(prefilled, "_continue", lambda prompt, _: asked.append(prompt))
    prefilled.transcribe(TranscribeOptions(language=language))
    prefilled.answer("Größe ☃, a\nb?")
    whole = llm._transcription([samples], language)["input_ids"][0].tolist()
    assert whole[prefilled._length :] == asked[0]
    seen: list[list[int]] = []
    monkeypatch.setattr(
        llm, "_generate", lambda inputs, _: seen.append(inputs["input_ids"][0].tolist())
    )
    llm.answer([samples], ["Größe ☃, a\nb?"])
    assert seen[0][prefilled._length :] == asked[1]


def test_random_weights_do_a_fixed_number_of_steps(clips: list[Clip]) -> None:
    said = {}
    for kind in ("generate", "loop"):
        model: Any = make_llm(spec("pocket", weights="random", decoding=kind), CpuDevice())
        model.load()
        # ids of control tokens, too
        model._text = lambda row, *_: GenerationResult("", tuple(row))
        samples = clips[0].samples()
        few = TranscribeOptions(max_new_tokens=5)
        said[kind] = model.transcribe([samples], few)[0].tokens
        if kind == "loop":
            prefilled = model.prefill(samples)
            assert prefilled.transcribe(few).tokens == said[kind]
        model.unload()
    assert len(said["loop"]) == 5
    assert said["loop"] == said["generate"]


def test_an_audio_beyond_the_limit_is_refused(llms: dict[str, AudioLanguageModel]) -> None:
    import numpy as np

    with pytest.raises(AudioError, match="too long for transcription"):
        llms["loop"].prefill(np.zeros(31 * 60 * 16_000, np.float32))
