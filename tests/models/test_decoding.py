"""Every way to decode says the same; a prefix that was heard once serves every job behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hybridlab.audio import Clip, load_clips
from hybridlab.catalog import DECODINGS
from hybridlab.devices import CpuDevice
from hybridlab.errors import AudioError
from hybridlab.models import TenantSpec, make_analyst
from hybridlab.models.base import Analyst, Text

SPEC = TenantSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32")
MOST = 32


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return load_clips()


def both_jobs(analyst: Analyst, clip: Clip) -> list[Text]:
    samples, question = [clip.samples()], clip.questions[0].text
    return [
        analyst.transcribe(samples, max_new_tokens=MOST)[0],
        analyst.answer(samples, [question], max_new_tokens=MOST)[0],
    ]


@pytest.mark.parametrize("kind", ["loop", "static"])
def test_decoding_says_what_generate_says(
    kind: str, analysts: dict[str, Analyst], clips: list[Clip]
) -> None:
    for clip in clips:
        assert both_jobs(analysts[kind], clip) == both_jobs(analysts["generate"], clip), clip.id


def test_a_padded_batch_says_what_generate_says(
    analysts: dict[str, Analyst], clips: list[Clip]
) -> None:
    batch = [clip.samples() for clip in clips[:3]]
    questions = ["Which digit is the largest?", "hm", clips[2].questions[0].text]
    said = [analysts[kind].answer(batch, questions, max_new_tokens=MOST) for kind in DECODINGS]
    assert said[0] == said[1] == said[2]


def test_one_prefix_serves_every_job(analysts: dict[str, Analyst], clips: list[Clip]) -> None:
    for clip in clips:
        heard = analysts["loop"].hear(clip.samples())
        transcript, answer = both_jobs(analysts["loop"], clip)
        question = clip.questions[0].text
        assert heard.answer(question, max_new_tokens=MOST) == answer
        assert heard.transcribe(max_new_tokens=MOST) == transcript
        assert heard.answer(question, max_new_tokens=MOST) == answer  # nothing was left behind


def test_the_prefix_is_encoded_once(analysts: dict[str, Analyst], clips: list[Clip]) -> None:
    analyst = analysts["loop"]
    analyst.drain_spans()
    heard = analyst.hear(clips[0].samples())
    heard.transcribe(max_new_tokens=MOST)
    heard.answer(clips[0].questions[0].text, max_new_tokens=MOST)
    phases = [span.phase for span in analyst.drain_spans()]
    assert phases.count("encode") == 1
    assert phases.count("prefill") == 3  # the audio's, and one of a few tokens for each job
    assert phases.count("decode") == 2


@pytest.mark.parametrize("language", ["en", "fr", ""])
def test_prompts_behind_the_prefix_are_the_processors_own(
    language: str, analysts: dict[str, Analyst], clips: list[Clip], monkeypatch: Any
) -> None:
    analyst: Any = analysts["loop"]
    samples = clips[0].samples()
    heard: Any = analyst.hear(samples)
    asked: list[list[int]] = []
    monkeypatch.setattr(heard, "_continue", lambda prompt, _: asked.append(prompt))
    heard.transcribe(language=language)
    heard.answer("Größe ☃, a\nb?")
    whole = analyst._transcription([samples], language)["input_ids"][0].tolist()
    assert whole[heard._length :] == asked[0]
    seen: list[list[int]] = []
    monkeypatch.setattr(
        analyst, "_generate", lambda inputs, _: seen.append(inputs["input_ids"][0].tolist())
    )
    analyst.answer([samples], ["Größe ☃, a\nb?"])
    assert seen[0][heard._length :] == asked[1]


def test_random_weights_do_a_fixed_number_of_steps() -> None:
    said = {}
    for kind in ("generate", "loop"):
        spec = replace(SPEC, weights="random", decoding=kind)
        tenant: Any = make_analyst(spec, CpuDevice())
        tenant.load()
        tenant._text = lambda row, *_: Text("", tuple(row))  # ids of control tokens, too
        samples = load_clips()[0].samples()
        said[kind] = tenant.transcribe([samples], max_new_tokens=5)[0].tokens
        if kind == "loop":
            assert tenant.hear(samples).transcribe(max_new_tokens=5).tokens == said[kind]
        tenant.unload()
    assert len(said["loop"]) == 5
    assert said["loop"] == said["generate"]


def test_an_audio_beyond_the_limit_is_refused(analysts: dict[str, Analyst]) -> None:
    import numpy as np

    with pytest.raises(AudioError, match="too long for transcription"):
        analysts["loop"].hear(np.zeros(31 * 60 * 16_000, np.float32))
