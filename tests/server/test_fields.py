"""What becomes of each field of a request: served, refused with the reason that the description
gives, or not looked at."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from hybridlab.models.base import GenerationResult
from hybridlab.models.transcription import Segment, TranscribeOptions, Word
from hybridlab.server.jobs import InferenceJob
from hybridlab.server.schemas.requests import ChatBody, Refused, TranscriptionForm
from hybridlab.server.schemas.transcripts import WARNING_HEADER
from tests.server.fakes import FakeModel, asr, llm, played
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS, question, routes, upload

#: Of each field that is refused, something that a client may send.
ASKED: dict[str, Any] = {
    "include[]": "logprobs",
    "chunking_strategy": "server_vad",
    "chunking_strategy[type]": "server_vad",
    "known_speaker_names[]": ["Ann", "Bob"],
    "known_speaker_references[]": "data:,",
    "keywords[]": "Ann",
    "languages[]": ["de", "en"],
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ["."],
    "logit_bias": {"7": 1},
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "web_search_options": {"search_context_size": "low"},
}


def refused_fields(body: type[BaseModel]) -> dict[str, Refused]:
    return {
        field.alias or name: own
        for name, field in body.model_fields.items()
        for own in field.metadata
        if isinstance(own, Refused)
    }


OF_FORM, OF_CHAT = refused_fields(TranscriptionForm), refused_fields(ChatBody)


async def send(client: httpx.AsyncClient, name: str, value: Any) -> httpx.Response:
    if name in OF_FORM:
        return await client.post(TRANSCRIPTIONS, **upload(model="asr", **{name: value}))
    return await client.post(CHAT, json=question() | {name: value})


@pytest.mark.parametrize("name", [*OF_FORM, *OF_CHAT])
@played
async def test_a_field_that_is_refused_is_so_for_its_reason_and_harmless_where_it_asks_for_nothing(
    name: str,
) -> None:
    refused = (OF_FORM | OF_CHAT)[name]
    async with routes() as (client, _):
        found = await send(client, name, ASKED[name])
        assert (found.status_code, found.json()["error"]["code"]) == (400, "invalid_request")
        message = found.json()["error"]["message"]
        assert message == f"{name}: {refused.why}; leave it out"
        for harmless in ("" if name in OF_FORM else None, *refused.nothing):
            found = await send(client, name, harmless)
            assert found.status_code == 200, (harmless, found.text)


@played
async def test_fields_that_are_not_named_change_nothing() -> None:
    ear, mind = asr(say=lambda job: "heard"), llm()
    unknown = {"user": "u", "seed": "7", "vad_filter": "true"}
    async with routes(mind, ear) as (client, _):
        for path, fields in ((TRANSCRIPTIONS, {"model": "asr"}), (HYBRID, {"question": "Who?"})):
            said = []
            for more in ({}, unknown):
                found = await client.post(path, **upload(**fields, **more))
                assert found.status_code == 200, found.text
                said.append({k: v for k, v in found.json().items() if k != "id"})
            assert said[0] == said[1]
        assert ear.asked[0].options == ear.asked[1].options
        for more in ({}, unknown, {"temperature": 1.9, "top_p": 0.1}):
            found = await client.post(CHAT, json=question() | more)
            assert found.json()["choices"][0]["message"]["content"] == "said Who?"
        first, *others = mind.asked[-3:]
        assert all((one.question, one.options) == (first.question, first.options) for one in others)


@played
async def test_a_limit_of_tokens_has_two_names_of_which_the_newer_one_holds() -> None:
    mind = llm()
    async with routes(mind) as (client, _):
        for more, most in (
            ({"max_tokens": 5}, 5),
            ({"max_completion_tokens": 6}, 6),
            ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ):
            found = await client.post(CHAT, json=question() | more)
            assert found.status_code == 200
            assert mind.asked[-1].options.max_new_tokens == most


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("de", "de"),
        ("DE", "de"),
        ("German", "de"),
        ("gERMAN", "de"),
        ("de-AT", "de"),
        ("de_at", "de"),
        ("auto", ""),
        ("", "fr"),
        (None, "fr"),
    ],
)
@played
async def test_a_language_is_read_however_it_is_written(written: str | None, code: str) -> None:
    ear = asr(say=lambda job: "heard")
    fields = {} if written is None else {"language": written}
    async with routes(llm(), ear, language="fr") as (client, _):
        await client.post(TRANSCRIPTIONS, **upload(model="asr", **fields))
        await client.post(HYBRID, **upload(question="Who?", **fields))
    assert [params.options.language for params in ear.asked] == [code] * 2


@played
async def test_a_hybrid_request_asks_each_question_with_its_limit_and_leaves_empty_fields_out() -> (
    None
):
    ear, mind = asr(say=lambda job: "heard"), llm()
    async with routes(mind, ear) as (client, _):
        body = upload(question=["Who?", "Where?"], max_tokens=7)
        answers = (await client.post(HYBRID, **body)).json()["answers"]
        assert [(one["index"], one["question"], one["text"]) for one in answers] == [
            (0, "Who?", "said Who?"),
            (1, "Where?", "said Where?"),
        ]
        assert [params.options.max_new_tokens for params in mind.asked] == [7, 7]
        assert ear.asked[0].options == TranscribeOptions(language="")
        empty = dict.fromkeys(("language", "max_tokens", "stream"), "")
        found = await client.post(HYBRID, **upload(question="Who?", **empty))
        assert found.json()["answers"][0]["text"] == "said Who?"
        assert ear.asked[1].options == TranscribeOptions(language="")


@played
async def test_an_audio_is_asked_for_its_text_alone_by_no_address() -> None:
    async with routes() as (client, _):
        for part in (
            {"type": "audio_url", "audio_url": {"url": "https://example.org/a.wav"}},
            {"type": "audio_url", "audio_url": "file:///etc/passwd"},
        ):
            text = {"type": "text", "text": "Who?"}
            messages = [{"role": "user", "content": [part, text]}]
            found = await client.post(CHAT, json={"model": "llm", "messages": messages})
            assert (found.status_code, "never opened" in found.text) == (400, True)


# --------------------------------------------------------------- the same facts in every shape


def fallen_back(job: InferenceJob) -> GenerationResult:
    """A text that was cut, with the times of its words where they are asked for."""
    words = (Word("heard", 0.1, 0.8, 0.9),) if job.params.options.words else ()
    segment = Segment(0.0, 0.9, "heard", (5,), words=words)
    return GenerationResult(
        "heard", (5,), "length", segments=(segment,), language="de", audio_s=1.0
    )


@played
async def test_every_shape_tells_the_larger_model_how_the_text_ended_and_its_language() -> None:
    ear = asr("medium", "base", result=fallen_back, active=1, tells_times=True)
    mind = FakeModel("llm", ["voxtral-mini-3b", "voxtral-pocket"], active=1)
    larger, warning = "whisper-medium", "the text was cut at a limit of tokens"
    async with routes(mind, ear, retry_larger_after_s=600) as (client, engine):
        for scheduler in engine.schedulers.values():
            scheduler.supervisor._retry_at_s = float("inf")  # no larger one is tried meanwhile

        async def transcript(**fields: Any) -> Any:
            sent = await client.post(TRANSCRIPTIONS, **upload(model="asr", **fields))
            if "stream" not in fields:
                return sent.json()
            return json.loads(sent.text.strip().rpartition("\n\n")[2].removeprefix("data: "))

        verbose = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        hybrid = (await client.post(HYBRID, **upload(question="Who?"))).json()
        details = [await transcript(**verbose), await transcript(stream="true", **verbose)]
        told = [await transcript(), await transcript(stream="true"), hybrid["transcript"], *details]
        for found in told:
            assert (found["model"], found["instead_of"]) == ("whisper-base", larger)
            assert (found["finish_reason"], found["warning"]) == ("length", warning)
            assert found["text"] == "heard"
        for found in details:
            assert (found["language"], found["token_ids"]) == ("de", [5])
            word = {"word": "heard", "start": 0.1, "end": 0.8, "probability": 0.9}
            assert found["words"] == found["segments"][0]["words"] == [word]
        (answer,) = hybrid["answers"]
        assert (answer["model"], answer["instead_of"]) == ("voxtral-pocket", "voxtral-mini-3b")
        text = await client.post(TRANSCRIPTIONS, **upload(model="asr", response_format="text"))
        assert text.headers[WARNING_HEADER] == warning


@played
async def test_of_the_llm_s_transcript_nothing_is_told_that_it_does_not_know() -> None:
    async with routes() as (client, _):
        body = upload(model="llm", response_format="verbose_json")
        found = (await client.post(TRANSCRIPTIONS, **body)).json()
        assert found["language"] is None
        (segment,) = found["segments"]
        assert (segment["start"], segment["end"], segment["text"]) == (0.0, 1.0, found["text"])
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            assert segment[name] is None
        body = upload(model="llm", response_format="verbose_json", language="de")
        assert (await client.post(TRANSCRIPTIONS, **body)).json()["language"] == "de"


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
    ],
)
@played
async def test_the_format_is_that_which_is_named_and_the_times_are_in_the_header(
    form: str, kind: str
) -> None:
    async with routes(asr(serve_s=0.05), llm(serve_s=0.05)) as (client, _):
        sent = {path: upload(model="asr", response_format=form) for path in PATHS}
        for path, body in sent.items():
            found = await client.post(path, **body)
            assert found.headers["content-type"].startswith(kind)
            check_timing(found)
        check_timing(await client.post(CHAT, json=question()))


PATHS = (TRANSCRIPTIONS, "/v1/audio/translations")


def check_timing(found: httpx.Response) -> None:
    """Milliseconds of the wait, of the work of 50 ms, and of all of it."""
    told = dict(part.strip().split(";dur=") for part in found.headers["server-timing"].split(","))
    milliseconds = {name: float(value) for name, value in told.items()}
    assert set(milliseconds) == {"wait", "work", "total"}
    assert 0 <= milliseconds["wait"] < 10_000
    assert 50 <= milliseconds["work"] <= milliseconds["total"] < 10_000
