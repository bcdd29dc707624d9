"""Models of another server, which breaks in every way: a few scripted bytes behind a socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import numpy as np
import pytest

from hybridlab.models.http_model import TRANSLATIONS
from hybridlab.models.transcription import TranscribeOptions, Word
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.errors import ApiError
from hybridlab.server.http_model_client import HttpModelClient
from hybridlab.server.jobs import BatchResult, DecodedAudio, InferenceJob, InferenceParams
from hybridlab.server.model_pool import upstream_scheduler
from hybridlab.server.settings import Role, Settings
from tests.server.fakes import InProcessDecoder, asr, llm, played
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS, live, question, upload

#: 65 s in three windows.
AUDIO = DecodedAudio(np.zeros(65 * 16_000, np.float32), (28 * 16_000, 56 * 16_000), encoded=b"RIFF")
SEGMENTS = [(0.0, 28.0, "one"), (56.0, 65.0, "two")]
TRANSCRIPT = {
    "text": "one two",
    "model": "whisper-base",
    "instead_of": "whisper-large-v3",
    "finish_reason": "early",
    "language": "de",
    "duration": 65.0,
    "token_ids": [7, 8],
    "segments": [
        {
            "start": a,
            "end": b,
            "text": text,
            "tokens": [7],
            "temperature": 0.0,
            "avg_logprob": -0.5,
            "no_speech_prob": 0.1,
            "compression_ratio": None,
            "words": [{"word": text, "start": a, "end": b, "probability": 0.9}],
        }
        for a, b, text in SEGMENTS
    ],
}
USAGE = {"prompt_tokens": 390, "completion_tokens": 3, "total_tokens": 393}
ANSWER = {
    "model": "voxtral-pocket",
    "choices": [{"message": {"content": "two"}, "finish_reason": "stop", "token_ids": [5]}],
    "usage": USAGE,
}
TIMING = "Server-Timing: wait;dur=1.0, work;dur=20.5\r\nServer-Timing: total;dur=25.0\r\n"


def reply(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{TIMING}"
    return head.encode() + b"\r\n" + body


def stream_of(*pieces: str, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """A streamed completion of these pieces."""
    choices: list[Any] = [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"delta": {}, "finish_reason": "length"})
    events: list[Any] = [{"model": "voxtral-pocket", "choices": [choice]} for choice in choices]
    events.append({"model": "voxtral-pocket", "choices": [], "usage": USAGE})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    return reply(body + end, kind="text/event-stream")


class Scripted:
    """A server that reads a request, sends its bytes, and closes; without bytes it is silent."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.requests: list[bytes] = []
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
        self.requests.append(head + await reader.readexactly(length))
        self.asked.set()
        writer.write(self.said)
        if not self.said:
            with suppress(ConnectionError):
                await reader.read()  # until the other side leaves
            self.left.set()
        writer.close()


@asynccontextmanager
async def scripted(
    said: bytes, *, role: Role = "llm", timeout_s: float = 10.0
) -> AsyncIterator[tuple[HttpModelClient, Scripted]]:
    script = Scripted(said)
    server = await asyncio.start_server(script, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    client = HttpModelClient(role, url, token="t", timeout_s=timeout_s)
    try:
        yield client, script
    finally:
        await client.close()
        server.close()


def job(kind: str = "answer", *, stream: bool = False) -> InferenceJob:
    params = InferenceParams(
        role="llm" if kind == "answer" else "asr",
        kind=kind,  # type: ignore[arg-type]
        audio=AUDIO,
        question="what?",
        options=TranscribeOptions(language="de", max_new_tokens=7, words=kind != "answer"),
        stream=stream,
    )
    return InferenceJob(params, 7, asyncio.get_running_loop().create_future())


async def infer(client: HttpModelClient, kind: str = "answer") -> BatchResult:
    return await client.infer([job(kind)])


@played
async def test_a_transcript_is_all_that_the_other_server_tells_and_has_its_times() -> None:
    async with scripted(reply(json.dumps(TRANSCRIPT).encode()), role="asr") as (client, script):
        found = (await infer(client, "transcription")).upstream
    assert found is not None
    (text,) = found.texts
    assert (text.text, text.tokens, text.finish_reason) == ("one two", (7, 8), "early")
    assert (text.language, text.audio_s) == ("de", 65.0)
    assert [(s.start_s, s.end_s, s.text) for s in text.segments] == SEGMENTS
    assert text.segments[1].words == (Word("two", 56.0, 65.0, 0.9),)
    assert (found.model, found.instead_of) == ("whisper-base", "whisper-large-v3")
    assert (found.queue_time_s, found.work_s, found.upstream_s) == (0.001, 0.0205, 0.025)
    (request,) = script.requests
    assert b"authorization: bearer t\r\n" in request.lower()
    fields = {"language": "de", "max_tokens": "7", "model": "asr"}
    for field, value in (fields | {"timestamp_granularities[]": "word"}).items():
        assert f'name="{field}"\r\n\r\n{value}\r\n'.encode() in request
    assert b"\r\n\r\nRIFF\r\n" in request  # the upload as it came


@played
async def test_an_answer_has_its_tokens() -> None:
    async with scripted(reply(json.dumps(ANSWER).encode())) as (client, script):
        ((text,),) = (await infer(client)).texts
    assert (text.text, text.tokens) == ("two", (5,))
    assert text.usage is not None
    assert (text.usage.prompt_tokens, text.finish_reason) == (390, "stop")
    body = json.loads(script.requests[0].partition(b"\r\n\r\n")[2])
    assert (body["max_tokens"], body["stream"]) == (7, False)
    assert body["messages"][0]["content"][0]["input_audio"]["data"] == "UklGRg=="  # RIFF


@played
async def test_a_stream_gives_its_text_as_it_comes_and_stops_when_nobody_reads_it() -> None:
    for wanted, expected in ((True, "two grün"), (False, "two")):
        async with scripted(stream_of("two", " grün")) as (client, _):
            pieces: list[str] = []

            def on_text(new: Any, pieces: list[str] = pieces, wanted: bool = wanted) -> bool:
                pieces.extend(new)
                return wanted

            ((text,),) = (await client.infer([job(stream=True)], on_text)).texts
        assert text.text == "".join(pieces) == expected
        if wanted:
            assert text.usage is not None
            assert text.finish_reason == "length"


@played
async def test_a_transcript_is_streamed_as_it_comes_and_has_all_that_the_last_event_tells() -> None:
    events: list[Any] = [{"type": "transcript.text.delta", "delta": d} for d in ("one", " two")]
    events.append({**TRANSCRIPT, "type": "transcript.text.done"})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    said = reply(body, kind="text/event-stream")
    for wanted, expected in ((True, "one two"), (False, "one")):
        async with scripted(said, role="asr") as (client, script):
            client.models = ["whisper-base"]
            pieces: list[str] = []

            def on_text(new: Any, pieces: list[str] = pieces, wanted: bool = wanted) -> bool:
                pieces.extend(new)
                return wanted

            ((text,),) = (await client.infer([job("transcription", stream=True)], on_text)).texts
        assert text.text == "".join(pieces) == expected
        assert len(text.segments) == 2 * wanted
        assert b'name="stream"\r\n\r\ntrue\r\n' in script.requests[0]
    cut = reply(body[:-200], kind="text/event-stream")
    async with scripted(cut, role="asr") as (client, _):
        with pytest.raises(ApiError) as caught:
            await client.infer([job("transcription", stream=True)], lambda new: True)
    assert caught.value.code == "upstream_error"


LOST = {"error": {"message": "lost", "type": "server_error", "code": "worker_lost"}}
GOOD = reply(json.dumps(ANSWER).encode())


@pytest.mark.parametrize(
    ("stream", "said", "status", "code"),
    [
        (False, b"HTTP/1.1 200 OK\r\n", 503, "upstream_lost"),  # killed in its headers
        (False, GOOD[:-5], 503, "upstream_lost"),  # killed in its body
        (False, reply(b""), 502, "upstream_error"),
        (False, reply(b"[]"), 502, "upstream_error"),
        (False, GOOD.replace(b"content", b"contens"), 502, "upstream_error"),
        (False, reply(b"{}", status="401 Unauthorized"), 502, "upstream_error"),
        (False, reply(b"Busy", status="503 Service Unavailable"), 502, "upstream_error"),
        (False, reply(json.dumps(LOST).encode(), status="503 No"), 503, "worker_lost"),
        (True, stream_of("two")[:-3], 503, "upstream_lost"),  # killed in its body
        (True, stream_of("two", end=b""), 502, "upstream_error"),  # no [DONE]
        (True, stream_of("two", end=b"data: []\n\n"), 502, "upstream_error"),
        (True, stream_of("two", end=b"data: {\n\n"), 502, "upstream_error"),
        (True, stream_of("two", end=f"data: {json.dumps(LOST)}\n\n".encode()), 502, "worker_lost"),
    ],
)
@played
async def test_a_broken_answer_is_an_error(
    stream: bool, said: bytes, status: int, code: str
) -> None:
    async with scripted(said) as (client, _):
        with pytest.raises(ApiError) as caught:
            await client.infer([job(stream=stream)], (lambda pieces: True) if stream else None)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "\n" not in str(caught.value)


@played
async def test_what_a_server_refuses_keeps_its_status_and_words() -> None:
    error = {"message": "too long", "type": "invalid_request_error", "code": "audio_too_long"}
    body = {"error": {**error, "longest_audio_s": 90.0}}
    said = reply(json.dumps(body).encode(), status="413 Content Too Large")
    async with scripted(said) as (client, _):
        with pytest.raises(ApiError) as caught:
            await infer(client)
    assert (caught.value.status_code, caught.value.body()) == (413, body)


@played
async def test_a_silent_server_is_a_timeout_and_a_withdrawn_call_ends_there_too() -> None:
    async with scripted(b"", timeout_s=0.2) as (client, _):
        with pytest.raises(ApiError) as caught:
            await infer(client)
        assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    async with scripted(b"") as (client, script):
        calling = asyncio.create_task(infer(client))
        await script.asked.wait()
        calling.cancel()
        await script.left.wait()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (reply(b'{"ready": false, "reason": "loading"}', status="503 No"), ": loading"),
        (reply(b"no"), "cannot be reached"),
        (b"", "cannot be reached"),
    ],
)
@played
async def test_a_server_that_is_not_ready_says_why(said: bytes, why: str) -> None:
    async with scripted(said) as (client, _):
        assert why in await client.health()
        assert client.models == []


@played
async def test_a_server_in_front_of_two_answers_as_they_do() -> None:
    """Many at once: the server behind puts them into batches, and what it refuses comes through."""
    mind = llm(serve_s=0.05, translates=False)
    ear = asr(say=lambda job: "heard it", tells_times=True)
    async with live(mind, batch=4) as behind_llm, live(ear) as behind_asr:
        urls = {
            f"{role}_url": f"http://127.0.0.1:{behind.port}"
            for role, behind in (("llm", behind_llm), ("asr", behind_asr))
        }
        engine = Engine(Settings.from_mapping(urls))
        engine.attach(
            {role: upstream_scheduler(role, engine.settings) for role in engine.settings.roles},
            InProcessDecoder(),
        )
        await engine.load()
        engine.run()
        transport = httpx.ASGITransport(create_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = [f"question {n}" for n in range(10)]
            both = (await client.post(HYBRID, **upload(question=asked))).json()
            assert both["transcript"]["text"] == "heard it"
            assert [one["text"] for one in both["answers"]] == [f"said {text}" for text in asked]
            assert max(map(len, mind.calls)) == 4
            streamed = (await client.post(HYBRID, **upload(question="a", stream="true"))).text
            names = [line for line in streamed.splitlines() if line.startswith("event: ")]
            assert names == [
                f"event: {n}" for n in ("transcript", "delta", "delta", "answer", "done")
            ]
            models = (await client.get("/v1/models")).json()["data"]
            assert [(one["id"], one["tells_times"]) for one in models] == [
                ("voxtral-pocket", False),
                ("whisper-pocket-m", True),
            ]
            fields = {"model": "asr", "prompt": "Ann", "temperature": "0.5", "language": "de"}
            words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
            english = await client.post(TRANSLATIONS, **upload(**fields, **words))
            assert english.json()["text"] == "heard it"
            assert ear.asked[-1].options == TranscribeOptions(
                language="de", task="translate", prompt="Ann", temperature=0.5, words=True
            )
            await client.post(TRANSCRIPTIONS, **upload(model="asr", response_format="srt"))
            assert (ear.asked[-1].options.words, ear.asked[-1].options.language) == (True, "")
            parts = (await client.post(TRANSCRIPTIONS, **upload(model="asr", stream="true"))).text
            told = [json.loads(part[6:]) for part in parts.split("\n\n") if part]
            assert [part.get("delta") for part in told] == ["heard", " it", None]
            assert told[-1]["text"] == "heard it"
            wrong = await client.post(TRANSLATIONS, **upload(model="llm"))
            assert (wrong.status_code, "does not translate" in wrong.text) == (400, True)
            chat = await client.post(CHAT, json=question())
            assert re.search(r"wait;.* work;.* upstream;dur=", chat.headers["server-timing"])
            assert (await client.get("/health/ready")).json() == {"ready": True, "reason": ""}
            mind.say = lambda job: ""
            refused = await client.post(CHAT, json=question())
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "empty_output")
            behind_llm.stage.engine.draining = True
            assert "stopping" in (await client.get("/health/ready")).json()["reason"]
            assert (await client.post(CHAT, json=question())).json()["error"]["code"] == "stopping"
        await engine.stop()
