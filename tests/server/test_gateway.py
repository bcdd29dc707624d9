"""The gateway over servers that break in every way, each a few scripted bytes behind a socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn

from hybridlab.errors import ParameterError
from hybridlab.server.gateway import Gateway, make_app
from hybridlab.server.gateway_run import run
from hybridlab.server.refusals import RefusalError
from hybridlab.server.security import Gate
from hybridlab.server.upstream import Upstream

TRANSCRIPT = {
    "text": "one two",
    "model": "whisper-base",
    "instead_of": "whisper-large-v3",
    "duration": 2.0,
    "segments": [{"id": 0, "start": 0.0, "end": 2.0, "text": "one two", "tokens": [1]}],
}
ANSWER = {
    "model": "voxtral-pocket",
    "choices": [{"message": {"content": "two"}, "finish_reason": "stop"}],
}


def reply(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream_of(*pieces: str, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """A streamed completion of these pieces."""
    choices: list[Any] = [{"delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"delta": {}, "finish_reason": "stop"})
    events = [{"model": "voxtral-pocket", "choices": [choice]} for choice in choices]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    return reply(body + end, kind="text/event-stream")


GOOD = {
    "whisper": reply(json.dumps(TRANSCRIPT).encode()),
    "voxtral": reply(json.dumps(ANSWER).encode()),
}
#: The headers of a stream and its first event, then nothing.
BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"b\r\ndata: one\n\n\r\n"
)


class Scripted:
    """A server that reads a request, sends its bytes, and closes; without bytes it says nothing.
    `stays`: the connection is kept open after them."""

    def __init__(self, said: bytes, *, stays: bool = False) -> None:
        self.said = said
        self.stays = stays
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0] or b"0")
        self.requests.append(head + await reader.readexactly(length))
        self.asked.set()
        writer.write(self.said)
        if self.stays or not self.said:
            with suppress(ConnectionError):
                await reader.read()  # until the other side leaves
            self.left.set()
        writer.close()


class Stage:
    def __init__(self, whisper: Scripted, voxtral: Scripted) -> None:
        self.whisper = whisper
        self.voxtral = voxtral
        self.gateway: Gateway
        self.client: httpx.AsyncClient

    def hybrid(self, **form: Any) -> Coroutine[Any, Any, httpx.Response]:
        data = {"question": ["what?"], **form}
        return self.client.post("/v1/hybrid", data=data, files={"file": ("a", b"RIFF")})

    def chat(self, **body: Any) -> Coroutine[Any, Any, httpx.Response]:
        return self.client.post("/v1/chat/completions", json={"model": "voxtral", **body})


@asynccontextmanager
async def staged(
    whisper: Scripted, voxtral: Scripted, *, queue: int = 2, timeout_s: float = 20.0
) -> AsyncIterator[Stage]:
    """A gateway under uvicorn over two scripted servers."""
    stage = Stage(whisper, voxtral)
    servers, urls = [], []
    for script in (whisper, voxtral):
        server = await asyncio.start_server(script, "127.0.0.1", 0)
        servers.append(server)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    sides = [
        Upstream(name, url, token="t", timeout_s=timeout_s)
        for name, url in zip(("whisper", "voxtral"), urls, strict=True)
    ]
    stage.gateway = Gateway(sides[0], sides[1], queue=queue)
    app = Gate(
        make_app(stage.gateway),
        token="",
        loopback=True,
        max_upload_bytes=10**6,
        upload_timeout_s=10,
        most_requests=100,
    )
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        stage.client = client
        yield stage
    server.should_exit = True
    await serving
    await stage.gateway.close()
    for one in servers:
        one.close()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code, of an error of one line."""
    error = answer.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    return answer.status_code, error["code"]


def test_a_hybrid_request_is_both_at_once_in_the_servers_shape() -> None:
    async def scene() -> None:
        whisper, voxtral = Scripted(GOOD["whisper"]), Scripted(GOOD["voxtral"])
        async with staged(whisper, voxtral) as stage:
            found = (await stage.hybrid(question=["a?", "b?"], max_tokens="7")).json()
        assert found["transcript"] == {
            "text": "one two",
            "model": "whisper-base",
            "instead_of": "whisper-large-v3",
            "duration": 2.0,
            "segments": [{"start": 0.0, "end": 2.0, "text": "one two"}],
        }
        assert [(a["index"], a["question"], a["text"]) for a in found["answers"]] == [
            (0, "a?", "two"),
            (1, "b?", "two"),
        ]
        bodies = [json.loads(r.partition(b"\r\n\r\n")[2]) for r in voxtral.requests]
        assert {body["max_tokens"] for body in bodies} == {7}
        audio = bodies[0]["messages"][0]["content"][0]["input_audio"]
        assert audio["data"] == "UklGRg=="  # RIFF
        assert all(b"authorization: bearer t\r\n" in r for r in voxtral.requests + whisper.requests)

    play(scene)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n", (502, "upstream_lost")),  # killed in its headers
        (GOOD["whisper"][:-5], (502, "upstream_lost")),  # killed in its body
        (reply(b""), (502, "upstream_fault")),
        (reply(b"[]"), (502, "upstream_fault")),
        (reply(b"{}", status="401 Unauthorized"), (502, "upstream_fault")),
        (reply(b"Busy", status="503 Service Unavailable"), (502, "upstream_fault")),
    ],
)
@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_broken_whisper_is_never_an_empty_answer(
    said: bytes, told: tuple[int, str], stream: str
) -> None:
    async def scene() -> None:
        async with staged(Scripted(said), Scripted(GOOD["voxtral"])) as stage:
            assert code(await stage.hybrid(stream=stream)) == told
            assert stage.gateway.under_way == 0

    play(scene)


def test_what_a_server_refuses_keeps_its_status_and_words() -> None:
    error = {"message": "too long", "type": "invalid_request_error", "code": "audio_too_long"}
    body = json.dumps({"error": {**error, "longest_audio_s": 90.0}}).encode()

    async def scene() -> None:
        refusal = Scripted(reply(body, status="413 Content Too Large"))
        async with staged(refusal, Scripted(GOOD["voxtral"])) as stage:
            answer = await stage.hybrid()
        assert (answer.status_code, answer.json()) == (413, json.loads(body))

    play(scene)


def test_a_silent_server_is_a_timeout() -> None:
    async def scene() -> None:
        async with staged(Scripted(GOOD["whisper"]), Scripted(b""), timeout_s=0.2) as stage:
            assert code(await stage.chat()) == (504, "timeout")

    play(scene)


def test_a_streamed_hybrid_has_the_words_as_they_come_in_the_servers_shape() -> None:
    async def scene() -> None:
        voxtral = Scripted(stream_of("two", " gr\u00fcn"))
        async with staged(Scripted(GOOD["whisper"]), voxtral) as stage:
            answer = await stage.hybrid(question=["a?", "b?"], stream="true")
            assert stage.gateway.under_way == 0
        *events, rest = answer.text.split("\n\n")
        assert rest == ""
        lines = [event.partition("\ndata: ") for event in events]
        parts = [(name.removeprefix("event: "), json.loads(data)) for name, _, data in lines]
        assert (parts[0][0], parts[-1][0]) == ("transcript", "done")
        for index, question in enumerate(("a?", "b?")):
            own = [(name, part) for name, part in parts if part.get("index") == index]
            told = {"index": index, "question": question, "text": "two gr\u00fcn"}
            told |= {"finish_reason": "stop", "model": "voxtral-pocket"}
            assert own == [
                ("delta", {"index": index, "text": "two"}),
                ("delta", {"index": index, "text": " gr\u00fcn"}),
                ("answer", told),
            ]
        assert all(b'"stream": true' in request for request in voxtral.requests)

    play(scene)


LOST = {"error": {"message": "lost", "type": "server_error", "code": "worker_lost"}}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (stream_of("two")[:-3], "upstream_lost"),  # killed in its body
        (stream_of("two", end=b""), "upstream_fault"),  # no [DONE]
        (stream_of("two", end=b"data: []\n\n"), "upstream_fault"),
        (stream_of("two", end=b"data: {\n\n"), "upstream_fault"),
        (stream_of("two", end=f"data: {json.dumps(LOST)}\n\n".encode()), "worker_lost"),
    ],
)
def test_a_voxtral_that_fails_after_its_first_words_is_told_in_the_stream(
    said: bytes, told: str
) -> None:
    async def scene() -> None:
        async with staged(Scripted(GOOD["whisper"]), Scripted(said)) as stage:
            answer = await stage.hybrid(stream="true")
            assert stage.gateway.under_way == 0
        assert answer.status_code == 200
        names = [line for line in answer.text.splitlines() if line.startswith("event")]
        assert names == ["event: transcript", "event: delta", "event: error"]
        assert json.loads(answer.text.rpartition("data: ")[2])["error"]["code"] == told

    play(scene)


def test_a_stream_that_breaks_ends_with_an_error() -> None:
    async def scene() -> None:
        async with staged(Scripted(GOOD["whisper"]), Scripted(BEGUN)) as stage:
            answer = await stage.chat(stream=True)
            assert stage.gateway.under_way == 0
        first, last = answer.text.strip().split("\n\n")
        assert first == "data: one"
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_lost"

    play(scene)


def test_events_pass_through_before_the_stream_ends_and_a_client_that_leaves_ends_it() -> None:
    async def scene() -> None:
        voxtral = Scripted(BEGUN, stays=True)
        async with staged(Scripted(GOOD["whisper"]), voxtral) as stage:
            request = {"model": "voxtral", "stream": True}
            async with stage.client.stream("POST", "/v1/chat/completions", json=request) as answer:
                assert await anext(answer.aiter_raw()) == b"data: one\n\n"
                assert stage.gateway.under_way == 1
            await voxtral.left.wait()
            await stage.gateway.drain()
            assert stage.gateway.under_way == 0

    play(scene)


@pytest.mark.parametrize("route", ["hybrid", "chat"])
def test_a_client_that_leaves_ends_what_was_asked_for_it(route: str) -> None:
    async def scene() -> None:
        voxtral = Scripted(b"")
        async with staged(Scripted(GOOD["whisper"]), voxtral) as stage:
            asking = asyncio.create_task(getattr(stage, route)())
            await voxtral.asked.wait()
            asking.cancel()
            await voxtral.left.wait()
            await stage.gateway.drain()
            assert stage.gateway.under_way == 0

    play(scene)


def test_the_server_s_times_are_passed_on_and_told_from_the_gateway_s() -> None:
    timing = b"Server-Timing: wait;dur=1.0, work;dur=20.5\r\nServer-Timing: total;dur=25.0\r\n"

    async def scene() -> None:
        said = GOOD["voxtral"].replace(b"Content-Type", timing + b"Content-Type")
        async with staged(Scripted(GOOD["whisper"]), Scripted(said)) as stage:
            answer = await stage.chat()
        times = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
        total_ms = float(times.pop("total"))
        assert times == {"wait": "1.0", "work": "20.5", "upstream": "25.0"}
        assert 0 < total_ms < 20_000

    play(scene)


def test_more_than_may_be_under_way_is_told_to_wait() -> None:
    async def scene() -> None:
        voxtral = Scripted(b"")
        async with staged(Scripted(GOOD["whisper"]), voxtral, queue=1) as stage:
            first = asyncio.create_task(stage.chat())
            await voxtral.asked.wait()
            for answer in (await stage.chat(), await stage.hybrid()):
                assert code(answer) == (429, "queue_full")
                assert answer.headers["retry-after"] == "1"
            assert code(await stage.hybrid(question=["a", "b"])) == (400, "invalid_request")
            first.cancel()
            await voxtral.left.wait()

    play(scene)


def test_a_gateway_that_stops_takes_nothing_new() -> None:
    async def scene() -> None:
        async with staged(Scripted(GOOD["whisper"]), Scripted(GOOD["voxtral"])) as stage:
            await stage.gateway.drain()
            assert code(await stage.hybrid()) == (503, "not_ready")
            assert (await stage.client.get("/health/ready")).status_code == 503

    play(scene)


@pytest.mark.parametrize(
    ("model", "whose"),
    [
        ("whisper-1", "whisper"),
        ("openai/whisper-large-v3", "whisper"),
        ("turbo", "whisper"),
        ("pocket-m", "whisper"),
        ("mistralai/Voxtral-Mini-3B-2507", "voxtral"),
        ("mini-3b", "voxtral"),
        ("pocket", "voxtral"),
    ],
)
def test_whose_model_it_is(model: str, whose: str) -> None:
    sides = [
        Upstream(n, "http://127.0.0.1:9", token="", timeout_s=1) for n in ("whisper", "voxtral")
    ]
    gateway = Gateway(sides[0], sides[1], queue=1)
    assert gateway.of_model(model).name == whose
    with pytest.raises(RefusalError, match="the model 'gpt-4o' is not served"):
        gateway.of_model("gpt-4o")


def test_wrong_options_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRIDLAB_TOKEN", raising=False)
    urls = {"whisper_url": "http://127.0.0.1:1", "voxtral_url": "http://127.0.0.1:2"}
    with pytest.raises(ParameterError, match="voxtral-url 'localhost:2' is no address"):
        run(urls | {"voxtral_url": "localhost:2"})
    with pytest.raises(ParameterError, match="needs a bearer token"):
        run(urls | {"host": "0.0.0.0"})


def test_json_that_is_nested_without_end_is_refused() -> None:
    async def scene() -> None:
        async with staged(Scripted(b""), Scripted(b"")) as stage:
            answer = await stage.client.post("/v1/chat/completions", content=b"[" * 10**5)
        assert code(answer) == (400, "invalid_request")

    play(scene)
