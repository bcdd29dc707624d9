"""Shapes of requests and responses, by known answers."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hybridlab.models.base import GenerationResult, TokenUsage
from hybridlab.models.transcription import FinishReason, Segment, TranscribeOptions
from hybridlab.models.transcription import Word as TextWord
from hybridlab.server.errors import ApiError
from hybridlab.server.jobs import DecodedAudio, InferenceResult
from hybridlab.server.schemas.completions import completion
from hybridlab.server.schemas.requests import ChatBody, known_language
from hybridlab.server.schemas.transcripts import segments_of, transcript, verbose_transcript

AUDIO_65_S = DecodedAudio(np.zeros(65 * 16_000, np.float32), (28 * 16_000, 56 * 16_000 + 8))


def window(text: str, *, audio_s: float, finish: FinishReason = "stop") -> GenerationResult:
    """What Whisper says of a window."""
    segments = (Segment(0.0, audio_s, text, (7, 8), avg_logprob=-0.25),) if text else ()
    return GenerationResult(text, (7, 8), finish, segments=segments, language="en", audio_s=audio_s)


def said(*texts: GenerationResult, **changes: object) -> InferenceResult:
    fields = {"model": "whisper-base", "queue_time_s": 0.0, "work_s": 0.1, **changes}
    return InferenceResult(texts=texts, **fields)  # type: ignore[arg-type]


def heard(*texts: str, **changes: object) -> InferenceResult:
    """Of the windows of `AUDIO_65_S`."""
    seconds = [end - start for start, end in AUDIO_65_S.bounds_s()]
    windows = [window(text, audio_s=s) for text, s in zip(texts, seconds, strict=True)]
    return said(*windows, **changes)


def test_segments_have_the_times_of_the_windows_that_were_really_cut() -> None:
    found = segments_of(heard("one", "", "three"), AUDIO_65_S)
    assert [(s.start_s, round(s.end_s, 3), s.text) for s in found] == [
        (0.0, 28.0, "one"),
        (56.0005, 65.0, "three"),
    ]


def test_a_text_for_the_whole_audio_is_one_segment() -> None:
    (segment,) = segments_of(said(GenerationResult("all of it", (1,))), AUDIO_65_S)
    assert (segment.start_s, segment.end_s) == (0.0, 65.0)


def test_verbose_json_gives_null_for_what_is_not_measured() -> None:
    result = heard("one", "two", "three", instead_of="whisper-large-v3")
    found = verbose_transcript(result, AUDIO_65_S, TranscribeOptions()).model_dump()
    assert found["text"] == "one two three"
    assert (found["duration"], found["language"], found["task"]) == (65.0, "en", "transcribe")
    assert found["usage"] == {"type": "duration", "seconds": 65.0}
    assert transcript(result, AUDIO_65_S).model_dump()["usage"] == found["usage"]
    assert (found["model"], found["instead_of"]) == ("whisper-base", "whisper-large-v3")
    assert (found["finish_reason"], "warning" in found, "words" in found) == ("stop", False, False)
    second = found["segments"][1]
    assert (second["start"], second["end"], second["seek"]) == (28.0, 56.001, 2800)
    assert (second["avg_logprob"], second["no_speech_prob"]) == (-0.25, None)
    assert second["tokens"] == [7, 8]


def test_the_language_of_a_text_is_told_as_far_as_it_is_known() -> None:
    def told(result: InferenceResult, **asked: Any) -> str | None:
        return verbose_transcript(result, AUDIO_65_S, TranscribeOptions(**asked)).language

    silent = said(GenerationResult("no one tells", (1,)))
    assert told(heard("a", "b", "c"), language="") == "en"  # detected
    assert told(silent, language="de") == "de"
    assert told(silent, language="") is None
    assert told(heard("a", "b", "c"), language="fr", task="translate") == "en"


@pytest.mark.parametrize(
    ("finish", "why"), [("length", "cut at a limit of tokens"), ("early", "left audio unread")]
)
def test_a_text_that_may_lack_words_says_so(finish: FinishReason, why: str) -> None:
    result = said(window("one", audio_s=28.0), window("two", audio_s=28.0, finish=finish))
    found = transcript(result, AUDIO_65_S).model_dump()
    assert found["finish_reason"] == finish
    assert why in found["warning"]


def test_words_are_told_where_they_are_asked_for() -> None:
    word = TextWord("one", 0.5, 0.75, 0.9)
    segment = Segment(0.0, 28.0, "one", (7,), words=(word,))
    result = said(GenerationResult("one", (7,), segments=(segment,), audio_s=28.0))
    asked = TranscribeOptions(words=True)
    expected = [{"word": "one", "start": 0.5, "end": 0.75, "probability": 0.9}]
    found = verbose_transcript(result, AUDIO_65_S, asked).model_dump()
    assert found["words"] == found["segments"][0]["words"] == expected
    silent = said(GenerationResult("", (), audio_s=28.0))
    assert verbose_transcript(silent, AUDIO_65_S, asked).model_dump()["words"] == []


@pytest.mark.parametrize(("ended", "reason"), [(True, "stop"), (False, "length")])
def test_a_completion_says_how_it_ended_and_tells_its_tokens(ended: bool, reason: str) -> None:
    text = GenerationResult("fine", (7, 8), "stop" if ended else "length", usage=TokenUsage(390, 3))
    found = completion("c-1", said(text)).model_dump()
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


ABC = base64.b64encode(b"abc").decode()
AUDIO = {"type": "input_audio", "input_audio": {"data": ABC}}
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
        (chat({"type": "image_url", "image_url": {"url": "data:x"}}, ASK), "of the types 'text'"),
        (chat(None), "of the types 'text'"),
        ({"model": "voxtral", "messages": [{"role": "tool", "content": "x"}]}, "'system', 'dev"),
        (chat(AUDIO, ASK, modalities=["text", "audio"]), "modalities\n.*answers are text"),
        (chat(AUDIO, ASK, response_format={"type": "json_object"}), "plain text; leave it out"),
        (chat(AUDIO, ASK, tool_choice="required"), "calls no tools"),
        (chat(AUDIO, ASK, logprobs=True), "logprobs\n.*not told"),
        (chat(AUDIO, ASK, stop=["."]), "stop\n.*ends by itself"),
        (chat(AUDIO, ASK, frequency_penalty=0.5), "frequency_penalty\n.*greedy"),
    ],
)
def test_what_has_the_wrong_shape_is_refused_where_it_is_wrong(body: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ChatBody.model_validate(body)


def test_defaults_that_are_written_out_change_nothing() -> None:
    defaults = {
        "modalities": ["text"], "response_format": {"type": "text"}, "n": 1, "stream": False,
        "temperature": 1.0, "top_p": 1, "logprobs": False, "top_logprobs": 0, "tools": [],
        "tool_choice": "none", "stop": None, "logit_bias": {}, "presence_penalty": 0,
        "frequency_penalty": 0.0, "seed": 7, "user": "u", "store": False, "metadata": {"a": "b"},
    }  # fmt: skip
    found = ChatBody.model_validate(chat(AUDIO, ASK, **defaults))
    assert found.read() == (b"abc", "What is said?")


def test_null_is_as_a_field_left_out() -> None:
    nulls = dict.fromkeys(ChatBody.model_fields.keys() - {"model", "messages"})
    assert ChatBody.model_validate(chat(AUDIO, ASK, **nulls)).read() == (b"abc", "What is said?")


def test_the_texts_of_a_conversation_are_read_in_their_order() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [AUDIO, {"type": "text", "text": "Who speaks?"}]},
        {"role": "assistant", "content": "A man."},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "And"}, ASK]},
    ]
    _, question = ChatBody.model_validate({"model": "voxtral", "messages": messages}).read()
    assert question.split("\n\n") == ["Be brief.", "Who speaks?", "A man.", "And", "What is said?"]


#: Its base64 has both signs that the alphabet for addresses writes otherwise, and padding.
SOUND = bytes(range(256)) * 2 + b"\xfb\xff\xfe\xfb\xfb"
CODE = base64.b64encode(SOUND).decode()
MIME = base64.encodebytes(SOUND).decode()  # in lines


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": data}}
        for data in (
            CODE,
            MIME,
            MIME.replace("\n", "\r\n"),
            CODE.rstrip("="),
            base64.urlsafe_b64encode(SOUND).decode(),
            base64.urlsafe_b64encode(SOUND).decode().rstrip("="),
            f"data:audio/wav;base64,{CODE}",
            f"DATA:audio/wav;codecs=1;base64,{MIME}",
        )
    ]
    + [
        {"type": "input_audio", "input_audio": CODE},  # as Mistral's clients write it
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{CODE}"}},
        {"type": "audio_url", "audio_url": f"data:audio/wav;base64,{CODE}"},
    ],
)
def test_audio_is_read_however_its_base64_is_written(part: object) -> None:
    assert CODE.endswith("=")
    assert {"+", "/"} < set(CODE)
    sound, _ = ChatBody.model_validate(chat(part, ASK)).read()
    assert sound == SOUND


@pytest.mark.parametrize("bad", ["klingon", "e", "../x", "gb", "tir"])
def test_a_language_is_read_however_it_is_written(bad: str) -> None:
    assert (known_language("German"), known_language("de-AT"), known_language("auto")) == (
        "de",
        "de",
        "",
    )
    with pytest.raises(ValueError, match="is not known; write a code like 'en'"):
        known_language(bad)
