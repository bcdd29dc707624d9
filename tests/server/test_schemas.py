"""Shapes of requests and responses, by known answers."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from hybridlab.models.base import GenerationResult, TokenUsage
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import DecodedAudio, InferenceResult
from hybridlab.server.schemas.completions import completion
from hybridlab.server.schemas.requests import ChatBody, known_language
from hybridlab.server.schemas.transcripts import (
    Segment,
    segments_of,
    srt,
    transcript,
    verbose_transcript,
    vtt,
)

AUDIO_65_S = DecodedAudio(np.zeros(65 * 16_000, np.float32), (28 * 16_000, 56 * 16_000 + 8))


def said(*texts: str, ended: bool = True, **changes: object) -> InferenceResult:
    fields = {"model": "whisper-base", "queue_time_s": 0.0, "work_s": 0.1, **changes}
    usage = TokenUsage(390, 3, ended)
    return InferenceResult(
        texts=tuple(GenerationResult(text, (7, 8), usage) for text in texts), **fields
    )  # type: ignore[arg-type]


def test_segments_are_the_windows_that_were_really_cut() -> None:
    found = segments_of(said("one", "", "three & <four>"), AUDIO_65_S)
    assert [(s.start, s.end, s.text) for s in found] == [
        (0.0, 28.0, "one"),
        (56.001, 65.0, "three & <four>"),
    ]


def test_a_text_for_the_whole_audio_is_one_segment() -> None:
    (segment,) = segments_of(said("all of it"), AUDIO_65_S)
    assert (segment.start, segment.end) == (0.0, 65.0)


def test_subtitles_are_as_players_read_them() -> None:
    segments = [
        Segment(start=0.0, end=28.0, text="one"),
        Segment(start=3661.5, end=3725.0406, text="a --> b & <c>"),
    ]
    assert srt(segments) == (
        "1\n00:00:00,000 --> 00:00:28,000\none\n\n"
        "2\n01:01:01,500 --> 01:02:05,041\na --> b & <c>\n\n"
    )
    assert vtt(segments) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:28.000\none\n\n"
        "01:01:01.500 --> 01:02:05.041\na --&gt; b &amp; &lt;c>\n\n"
    )


def test_verbose_json_gives_null_for_what_is_not_measured() -> None:
    result = said("one", "two", "three", instead_of="whisper-large-v3")
    found = verbose_transcript(result, AUDIO_65_S, "en").model_dump()
    assert found["text"] == "one two three"
    assert (found["duration"], found["language"]) == (65.0, "en")
    assert found["usage"] == {"type": "duration", "seconds": 65.0}
    assert transcript(result, AUDIO_65_S).model_dump()["usage"] == found["usage"]
    assert (found["model"], found["instead_of"]) == ("whisper-base", "whisper-large-v3")
    second = found["segments"][1]
    assert (second["start"], second["end"], second["seek"]) == (28.0, 56.001, 2800)
    assert second["avg_logprob"] is second["no_speech_prob"] is None
    assert second["tokens"] == [7, 8]


@pytest.mark.parametrize(("ended", "reason"), [(True, "stop"), (False, "length")])
def test_a_completion_says_how_it_ended_and_tells_its_tokens(ended: bool, reason: str) -> None:
    found = completion("c-1", said("fine", ended=ended)).model_dump()
    assert found["choices"][0]["message"] == {"role": "assistant", "content": "fine"}
    assert found["choices"][0]["finish_reason"] == reason
    tokens = {"prompt_tokens": 390, "completion_tokens": 3, "total_tokens": 393}
    assert found["usage"] == tokens


def test_a_completion_refuses_to_guess_its_tokens() -> None:
    uncounted = InferenceResult(
        texts=(GenerationResult("a", (1,)),), model="voxtral-x", queue_time_s=0.0, work_s=0.0
    )
    with pytest.raises(RuntimeError, match="voxtral-x did not tell the tokens"):
        completion("c-1", uncounted)


AUDIO = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"abc").decode()}}
ASK = {"type": "text", "text": "What is said?"}


def chat(*parts: object, **more: object) -> dict[str, object]:
    return {"model": "voxtral", "messages": [{"role": "user", "content": list(parts)}], **more}


def test_a_question_is_read_with_what_the_system_says_before_it() -> None:
    body = chat(AUDIO, ASK, max_tokens=9, temperature=0.2)
    messages = body["messages"]
    assert isinstance(messages, list)
    messages.insert(0, {"role": "system", "content": "Be brief."})
    found = ChatBody.model_validate(body)
    assert found.read() == (b"abc", "Be brief.\n\nWhat is said?")
    assert (found.most_tokens, found.include_usage) == (9, False)
    for options, told in (({"include_usage": True}, True), ({}, False)):
        streamed = chat(AUDIO, ASK, stream=True, stream_options=options)
        assert ChatBody.model_validate(streamed).include_usage is told


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (chat(ASK), "input_audio"),
        (chat(AUDIO), "no message has a text"),
        (chat(AUDIO, AUDIO, ASK), "one audio"),
        (chat(AUDIO, ASK, stream_options={"include_usage": True}), "goes with a stream"),
        (chat({"type": "input_audio", "input_audio": {"data": "@@"}}, ASK), "base64"),
        (chat({"type": "input_audio", "input_audio": {"data": "\u00e9"}}, ASK), "base64"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(body: object, why: str) -> None:
    with pytest.raises(ApiError, match=why) as caught:
        ChatBody.model_validate(body).read()
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ([], "valid dict"),
        ({"model": "voxtral", "messages": "x"}, "messages\n.*valid list"),
        ({"messages": chat(AUDIO, ASK)["messages"]}, "model\n.*required"),
        (chat(AUDIO, ASK, n=2), "n\n.*should be 1"),
        (chat(AUDIO, ASK, tools=[{}]), "tools\n.*leave it out"),
        (chat(AUDIO, ASK, stream=True, stream_options=True), "stream_options\n.*valid dict"),
        (chat(AUDIO, ASK, stream="yes"), "stream\n.*valid boolean"),
        (chat(AUDIO, ASK, max_tokens=0), "max_tokens\n.*greater than"),
        (chat(AUDIO, ASK, max_tokens="9"), "max_tokens\n.*valid integer"),
        (chat(AUDIO, {"type": "text", "text": 7}), "text\n.*valid string"),
        (chat(AUDIO, {"type": "text", "text": "\ud800"}), "text\n.*surrogate"),
        (chat({"type": "input_audio", "input_audio": {"url": "file:///x"}}, ASK), "data\n.*req"),
        (chat({"type": "audio_url", "audio_url": {"url": "http://x"}}, ASK), "never opened"),
        (chat(None), "never opened"),
        ({"model": "voxtral", "messages": [{"role": "tool", "content": "x"}]}, "role\n.*'system'"),
    ],
)
def test_what_has_the_wrong_shape_is_refused_where_it_is_wrong(body: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ChatBody.model_validate(body)


@pytest.mark.parametrize("bad", ["english", "e", "../x", "gb", "tir", "haw"])
def test_a_language_is_a_code_that_both_models_take(bad: str) -> None:
    assert known_language("de") == "de"
    with pytest.raises(ValueError, match="ISO 639"):
        known_language(bad)
