"""Transcriptions and translations over models without weights: what a request asks of the model,
and what becomes of what it says."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from hybridlab import catalog
from hybridlab.models.base import GenerationResult
from hybridlab.models.transcription import FinishReason, Segment, Task, TranscribeOptions, Word
from hybridlab.server.jobs import InferenceJob
from hybridlab.server.memory import MemoryBudget
from hybridlab.server.schemas.requests import TranscriptionForm
from hybridlab.server.schemas.transcripts import WARNING_HEADER
from tests.server.fakes import FakeModel, admission, asr, llm, played, wanted
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS, question, routes, upload, wav

TRANSLATIONS = "/v1/audio/translations"
WORDS = ("Good", "morning,", "all.")


def spoken(*, finish: FinishReason = "stop") -> Callable[[InferenceJob], GenerationResult]:
    """What a Whisper says of 30 s of audio, of which the last 2 s are speech."""

    def said(job: InferenceJob) -> GenerationResult:
        words = tuple(
            Word(text, 28.0 + 0.5 * n, 28.5 + 0.5 * n, 0.9) for n, text in enumerate(WORDS)
        )
        segment = Segment(
            28.0, 29.5, " ".join(WORDS), (5, 6), avg_logprob=-0.25, no_speech_prob=0.125,
            compression_ratio=0.75, words=words if job.params.options.words else (),
        )  # fmt: skip
        text = segment.text
        return GenerationResult(
            text, (5, 6), finish, segments=(segment,), language="de", audio_s=30.0
        )

    return said


Said = Callable[[InferenceJob], GenerationResult]


def hears(said: Said | None = None, **more: Any) -> FakeModel:
    return asr(result=said or spoken(), **{"tells_times": True, **more})


def asked_of(model: FakeModel) -> TranscribeOptions:
    return model.asked[-1].options


Send = Callable[..., Awaitable[httpx.Response]]


def sender(client: httpx.AsyncClient, path: str = TRANSCRIPTIONS) -> Send:
    async def send(**fields: Any) -> httpx.Response:
        body = upload(wav(30.0), **{"model": "whisper-1", **fields})
        response: httpx.Response = await client.post(path, **body)
        return response

    return send


@played
async def test_a_field_reaches_the_model_as_it_is_meant() -> None:
    model = hears()
    async with routes(llm(), model) as (client, _):
        send = sender(client)
        await send()
        assert asked_of(model) == TranscribeOptions(language="")
        await send(prompt="Ann, Bob", temperature="0.5", max_tokens="7", language="de-AT")
        assert asked_of(model) == TranscribeOptions(
            language="de", prompt="Ann, Bob", temperature=0.5, max_new_tokens=7
        )
        await sender(client, TRANSLATIONS)(language="German")
        assert asked_of(model) == TranscribeOptions(language="de", task="translate")


@pytest.mark.parametrize("written", ["auto", "AUTO", "", None])
@played
async def test_a_language_that_is_left_open_is_detected_unless_the_operator_names_one(
    written: str | None,
) -> None:
    fields = {} if written is None else {"language": written}
    for option, expected in (("", ""), ("de", "de")):
        model = hears()
        async with routes(llm(), model, language=option) as (client, _):
            said = (await sender(client)(response_format="verbose_json", **fields)).json()
            always = written is not None and written.lower() == "auto"
            assert asked_of(model).language == ("" if always else expected)
            assert said["language"] == "de"


@played
async def test_beams_are_those_of_the_server_unless_tokens_are_drawn() -> None:
    model, mind = hears(), llm()
    async with routes(mind, model, beams=5) as (client, _):
        send = sender(client)
        await send()
        assert asked_of(model).beams == 5
        await send(temperature="0.5")
        assert asked_of(model).beams == 1
        await send(model="voxtral")
        assert asked_of(mind).beams == 1
        await client.post(HYBRID, **upload(question="Who?"))
        assert asked_of(model).beams == 5


def test_memory_is_kept_for_the_beams_of_a_batch() -> None:
    budget = MemoryBudget(10**9)
    predicted = admission("asr", "whisper-large-v3", budget)
    assert predicted.spec is not None
    predicted = replace(predicted, spec=replace(predicted.spec, backend="transformers"))
    job = InferenceJob(
        wanted("a", role="asr", seconds=30.0, beams=5),
        448,
        asyncio.new_event_loop().create_future(),
    )
    batch = predicted.batch_bytes([job] * 8)
    assert batch == predicted.bytes_of(audio_s=30.0, batch=8, new_tokens=448, beams=5)
    assert batch > 2 * predicted.bytes_of(audio_s=30.0, batch=8, new_tokens=448)


@played
async def test_words_have_times_where_they_are_asked_for() -> None:
    model = hears()
    async with routes(llm(), model) as (client, _):
        send = sender(client)
        for name in ("timestamp_granularities[]", "timestamp_granularities"):
            fields = {name: ["segment", "word"], "response_format": "verbose_json"}
            found = (await send(**fields)).json()
            assert [word["word"] for word in found["words"]] == list(WORDS)
            assert (found["words"][0]["start"], found["words"][-1]["end"]) == (28.0, 29.5)
        plain = (await send(response_format="verbose_json")).json()
        assert "words" not in plain
        (segment,) = plain["segments"]
        assert (segment["avg_logprob"], segment["no_speech_prob"]) == (-0.25, 0.125)
        assert segment["compression_ratio"] == 0.75
        wrong = await send(**{"timestamp_granularities[]": "word"})
        assert (wrong.status_code, "in verbose_json alone" in wrong.text) == (400, True)


@pytest.mark.parametrize("tells_times", [True, False])
@played
async def test_subtitles_start_where_speech_begins_if_the_model_tells_times(
    tells_times: bool,
) -> None:
    model = hears(tells_times=tells_times)
    async with routes(llm(), model) as (client, _):
        send = sender(client)
        srt = await send(response_format="srt")
        assert srt.text == "1\n00:00:28,000 --> 00:00:29,500\nGood morning, all.\n\n"
        assert srt.headers["content-type"].startswith("application/x-subrip")
        assert asked_of(model).words is tells_times
        vtt = await send(response_format="vtt")
        assert vtt.text.startswith("WEBVTT\n\n00:00:28.000 --> ")
        assert vtt.headers["content-type"].startswith("text/vtt")


@pytest.mark.parametrize("form", ["json", "verbose_json", "text", "srt", "vtt"])
@pytest.mark.parametrize(
    ("finish", "why"), [("stop", None), ("length", "cut at a limit"), ("early", "left audio")]
)
@played
async def test_a_text_that_may_lack_words_says_so_in_every_format(
    finish: FinishReason, why: str | None, form: str
) -> None:
    async with routes(llm(), hears(spoken(finish=finish))) as (client, _):
        found = await sender(client)(response_format=form)
        if form.endswith("json"):
            assert found.json()["finish_reason"] == finish
            told = found.json()["warning"]
        else:
            told = found.headers[WARNING_HEADER]
        assert told.endswith(catalog.POCKET_WORDS)
        assert (why in told) if why else told == catalog.POCKET_WORDS


@played
async def test_what_was_done_to_the_audio_is_told_beside_how_the_text_ended() -> None:
    """Samples that are integers written as floats."""
    loud = io.BytesIO()
    tone = 20_000 * np.sin(np.arange(16_000) / 6)
    soundfile.write(loud, tone.astype(np.float32), 16_000, format="WAV", subtype="FLOAT")
    async with routes(llm(), hears(spoken(finish="early"))) as (client, _):
        for form in ("json", "text"):
            body = upload(loud.getvalue(), model="whisper-1", response_format=form)
            found = await client.post(TRANSCRIPTIONS, **body)
            warning = found.headers.get(WARNING_HEADER) or found.json()["warning"]
            assert "left audio unread; its values go up to 20000 instead of 1" in warning


@played
async def test_the_list_of_models_tells_what_each_can() -> None:
    async with routes(llm(translates=False), hears()) as (client, _):
        told = {one["id"]: one for one in (await client.get("/v1/models")).json()["data"]}
        for name, expected in (("voxtral-pocket", False), ("whisper-pocket-m", True)):
            assert (told[name]["tells_times"], told[name]["translates"]) == (expected, expected)
            assert (await client.get(f"/v1/models/{name}")).json() == told[name]


# ------------------------------------------------------------------------------------ no speech


def silent(job: InferenceJob) -> GenerationResult:
    return GenerationResult("", (), language="en", audio_s=30.0)


@played
async def test_no_speech_is_an_ordinary_transcript_of_every_model() -> None:
    expected = {"json": "", "text": "\n", "srt": "", "vtt": "WEBVTT\n\n"}
    async with routes(llm(say=lambda job: ""), hears(silent)) as (client, _):
        for model in ("whisper-1", "voxtral"):
            send = sender(client)
            for form, text in expected.items():
                found = await send(model=model, response_format=form)
                assert found.status_code == 200, found.text
                assert (found.json()["text"] if form == "json" else found.text) == text
            verbose = (await send(model=model, response_format="verbose_json")).json()
            assert (verbose["text"], verbose["segments"], verbose["finish_reason"]) == (
                "",
                [],
                "stop",
            )
            (event, rest) = (await send(model=model, stream="true")).text.split("\n\n")
            assert json.loads(event.removeprefix("data: "))["type"] == "transcript.text.done"
            assert rest == ""
        # an answer that is empty is none
        empty = await client.post(CHAT, json=question())
        assert (empty.status_code, empty.json()["error"]["code"]) == (422, "empty_output")


@played
async def test_no_speech_has_answers_all_the_same() -> None:
    async with routes(llm(), hears(silent)) as (client, _):
        found = (await client.post(HYBRID, **upload(question="Who?"))).json()
        assert (found["transcript"]["text"], found["transcript"]["segments"]) == ("", [])
        assert found["answers"][0]["text"] == "said Who?"


# -------------------------------------------------------------------------------------- streams


@played
async def test_a_transcript_is_streamed_as_it_is_read() -> None:
    async with routes(llm(), hears()) as (client, _):
        for form, more in (("json", False), ("text", False), ("verbose_json", True)):
            found = await sender(client)(stream="true", response_format=form)
            assert found.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(e.removeprefix("data: ")) for e in found.text.split("\n\n") if e]
            *deltas, done = events
            assert "".join(one["delta"] for one in deltas) == done["text"] == " ".join(WORDS)
            assert {one["type"] for one in deltas} == {"transcript.text.delta"}
            assert (done["type"], done["finish_reason"]) == ("transcript.text.done", "stop")
            assert ("segments" in done, "language" in done) == (more, more)
        for form in ("srt", "vtt"):
            wrong = await sender(client)(stream="true", response_format=form)
            assert (wrong.status_code, "subtitles are not streamed" in wrong.text) == (400, True)


@played
async def test_a_stream_that_fails_ends_with_an_error() -> None:
    async def before_word(told: int) -> None:
        if told == 1:
            raise RuntimeError("a fault of the model's")

    async with routes(llm(), hears(before_word=before_word)) as (client, _):
        found = await sender(client)(stream="true")
        first, failure, rest = found.text.split("\n\n")
        assert json.loads(first.removeprefix("data: "))["delta"] == "Good"
        assert json.loads(failure.removeprefix("data: "))["error"]["code"] == "internal_error"
        assert rest == ""


# --------------------------------------------------------------------------- what is not served


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"include[]": "logprobs"}, "log probabilities are told of segments"),
        ({"chunking_strategy": "server_vad"}, "cut at quiet places"),
        ({"chunking_strategy[type]": "server_vad"}, "cut at quiet places"),
        ({"known_speaker_names[]": ["Ann", "Bob"]}, "speakers are not told apart"),
        ({"known_speaker_references[]": "data:,"}, "speakers are not told apart"),
        ({"keywords[]": "Ann"}, "write them into the prompt"),
        ({"languages[]": ["de", "en"]}, "name one language"),
        ({"response_format": "diarized_json"}, "speakers are not told apart"),
        ({"timestamp_granularities[]": "letter"}, "'segment' or 'word'"),
        ({"stream": "yes"}, "write true or false"),
        ({"model": "voxtral", "prompt": "Ann"}, "voxtral-pocket takes none"),
        ({"language": "tlh"}, "is not known; write a code like 'en'"),
    ],
)
@played
async def test_what_cannot_be_served_is_refused_with_the_reason(
    fields: dict[str, Any], why: str
) -> None:
    async with routes() as (client, _):
        found = await sender(client)(**fields)
        error = found.json()["error"]
        assert (found.status_code, why in error["message"]) == (400, True), error
        assert "\n" not in error["message"]


@played
async def test_words_of_a_model_without_timestamps_are_refused() -> None:
    async with routes(llm(), hears(tells_times=False)) as (client, _):
        fields = {"timestamp_granularities[]": "word", "response_format": "verbose_json"}
        for model, name in (("whisper-1", "whisper-pocket-m"), ("voxtral", "voxtral-pocket")):
            found = await sender(client)(model=model, **fields)
            assert found.status_code == 400
            assert f"{name} is decoded without timestamps" in found.json()["error"]["message"]


@played
async def test_translation_by_a_model_that_never_learned_it_is_refused() -> None:
    async with routes(llm(translates=False), hears(translates=False)) as (client, _):
        for model in ("whisper-1", "voxtral"):
            found = await sender(client, TRANSLATIONS)(model=model)
            assert (found.status_code, "does not translate" in found.text) == (400, True)


@played
async def test_empty_fields_are_as_those_left_out() -> None:
    model = hears()
    fields = TranscriptionForm.model_fields
    names = {fields[name].alias or name for name in fields} - {"file", "model"}
    async with routes(llm(), model) as (client, _):
        for path in (TRANSCRIPTIONS, TRANSLATIONS):
            task: Task = "translate" if path == TRANSLATIONS else "transcribe"
            for name in names:
                found = await sender(client, path)(**{name: ""})
                assert found.status_code == 200, (name, found.text)
                assert asked_of(model) == TranscribeOptions(language="", task=task)
