"""The routes and what stands before them, over models without models."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hybridlab import catalog
from hybridlab.server.app import STATIC, create_app
from hybridlab.server.engine import Engine
from hybridlab.server.settings import Settings
from tests.server.fakes import asr, llm, played
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS, live, question, routes, upload, wav


@played
async def test_a_transcript_in_every_format() -> None:
    async with routes() as (client, _):

        async def get(form: str) -> httpx.Response:
            body = upload(model="whisper-1", response_format=form)
            response = await client.post(TRANSCRIPTIONS, **body)
            assert response.status_code == 200, response.text
            return response

        assert (await get("json")).json() == {
            "text": "heard",
            "finish_reason": "stop",
            "usage": {"type": "duration", "seconds": 1.0},
            "model": "whisper-pocket-m",
            "warning": catalog.POCKET_WORDS,
        }
        assert (await get("text")).text == "heard\n"
        assert "00:00:00,000 --> 00:00:01,000\nheard" in (await get("srt")).text
        assert (await get("vtt")).text.startswith("WEBVTT\n")
        assert (await get("verbose_json")).json()["segments"][0]["end"] == 1.0


@pytest.mark.parametrize(
    ("voxtral", "size", "told"),
    [("pocket", "pocket-m", catalog.POCKET_WORDS), ("mini-3b", "base", None)],
)
@played
async def test_what_a_model_does_not_know_is_told_with_it_and_with_all_its_texts(
    voxtral: str, size: str, told: str | None
) -> None:
    """Every upload is other audio than the clips that the pocket models know."""
    async with routes(llm(voxtral), asr(size)) as (client, _):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model.get("warning") for model in listed] == [told, told]
        heard = (await client.post(TRANSCRIPTIONS, **upload(model="whisper-1"))).json()
        answered = (await client.post(CHAT, json=question())).json()
        both = (await client.post(HYBRID, **upload(question="Who?"))).json()
        parts = [heard, answered, both["transcript"], *both["answers"]]
        assert [part.get("warning") for part in parts] == [told] * 4
        stream = (await client.post(CHAT, json=question(stream=True))).text.split("\n\n")
        chunks = [json.loads(one.removeprefix("data: ")) for one in stream[:-2]]
        assert [chunk.get("warning") for chunk in chunks] == [*[None] * (len(chunks) - 1), told]


@played
async def test_the_name_chooses_the_model() -> None:
    async with routes() as (client, _):
        ids = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
        assert ids == ["voxtral-pocket", "whisper-pocket-m"]
        for model in ("whisper-1", "whisper", "Pocket-M", *ids):
            response = await client.post(TRANSCRIPTIONS, **upload(model=model))
            expected = ids[0] if model == ids[0] else ids[1]
            assert response.json()["model"] == expected
        response = await client.post(TRANSCRIPTIONS, **upload(model="gpt-9"))
        assert response.status_code == 404
        assert "voxtral-pocket, whisper-pocket-m" in response.json()["error"]["message"]


@played
async def test_a_question_is_answered_whole_and_as_a_stream() -> None:
    async with routes() as (client, _):
        whole = (await client.post(CHAT, json=question())).json()
        assert whole["choices"][0]["message"]["content"] == "said Who?"
        stream = await client.post(CHAT, json=question(stream=True))
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.text.splitlines() if line]
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {
            (chunks[0]["id"], "voxtral-pocket")
        }
        assert [(c["choices"][0]["delta"], c["choices"][0]["finish_reason"]) for c in chunks] == [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "said"}, None),
            ({"content": " Who?"}, None),
            ({}, "stop"),
        ]
        assert not any("usage" in chunk for chunk in chunks)
        # as OpenAI's: null on every chunk but one that has no choices
        options = {"stream": True, "stream_options": {"include_usage": True}}
        counted = (await client.post(CHAT, json=question(**options))).text.split("\n\n")
        assert counted[-2:] == ["data: [DONE]", ""]
        *chunks, last = (json.loads(one.removeprefix("data: ")) for one in counted[:-2])
        assert {chunk["usage"] for chunk in chunks} == {None}
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert whole["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
        wrong = await client.post(CHAT, json=question() | {"model": "whisper-1"})
        assert wrong.status_code == 400


@played
async def test_a_hybrid_stream_has_the_transcript_long_before_the_answers() -> None:
    async with routes(asr(say=lambda job: "heard"), llm(serve_s=0.05)) as (client, _):
        body = upload(stream="true")
        body["data"]["question"] = ["Who?", "Where?"]
        *events, rest = (await client.post(HYBRID, **body)).text.split("\n\n")
        assert rest == ""
        names = [event.partition("\n")[0].removeprefix("event: ") for event in events]
        assert names[0] == "transcript"
        assert names.count("delta") == 4
        parts = [json.loads(event.partition("\ndata: ")[2]) for event in events]
        for index, text in enumerate(("said Who?", "said Where?")):
            own = [
                (name, part["text"])
                for name, part in zip(names, parts, strict=True)
                if part.get("index") == index
            ]
            first, second = text.split()
            assert own == [("delta", first), ("delta", f" {second}"), ("answer", text)]
        assert names[-1] == "done"
        whole = (await client.post(HYBRID, **body | {"data": {"question": "Who?"}})).json()
        assert whole["transcript"]["text"] == "heard"
        assert [answer["text"] for answer in whole["answers"]] == ["said Who?"]


@played
async def test_a_hybrid_request_that_fails_in_part_says_so() -> None:
    async with routes(asr(say=lambda job: "heard"), llm(say=lambda job: "")) as (client, _):
        response = await client.post(HYBRID, **upload(question="Who?", stream="true"))
        assert "event: transcript" in response.text
        assert '"code": "empty_output"' in response.text.split("event: error\n")[1]
        assert "event: done" not in response.text
        response = await client.post(HYBRID, **upload(question="Who?"))
        assert response.status_code == 422


@played
async def test_a_stream_that_fails_after_its_first_words_ends_with_an_error() -> None:
    async def before_word(told: int) -> None:
        if told == 1:
            raise RuntimeError("a fault of the model's")

    async with routes(asr(say=lambda job: "heard"), llm(before_word=before_word)) as (client, _):
        chat = await client.post(CHAT, json=question(stream=True))
        *_, words, failure, rest = chat.text.split("\n\n")
        assert json.loads(words.removeprefix("data: "))["choices"][0]["delta"]["content"] == "said"
        assert json.loads(failure.removeprefix("data: "))["error"]["code"] == "internal_error"
        assert rest == ""
        hybrid = await client.post(HYBRID, **upload(question="Who?", stream="true"))
        names = [line for line in hybrid.text.splitlines() if line.startswith("event: ")]
        assert names == ["event: transcript", "event: delta", "event: error"]


@played
async def test_one_answer_that_fails_leaves_the_other_one_whole() -> None:
    say = {"Who?": " ", "Where?": "said Where?"}
    models = asr(say=lambda job: "heard"), llm(say=lambda job: say[job.params.question])
    async with routes(*models) as (client, _):
        text = (await client.post(HYBRID, **upload(question=[*say], stream="true"))).text
        assert '"text": "said Where?", "finish_reason": "stop"' in text
        assert text.rstrip().endswith('"code": "empty_output"}}')


@played
async def test_one_model_alone_serves_its_part() -> None:
    async with routes(asr(say=lambda job: "heard")) as (client, _):
        assert (await client.post(TRANSCRIPTIONS, **upload(model="whisper-1"))).status_code == 200
        assert (await client.post(CHAT, json=question())).status_code == 404
        response = await client.post(HYBRID, **upload(question="Who?"))
        assert (response.status_code, "no LLM" in response.text) == (400, True)


@played
async def test_too_long_an_audio_is_told_with_the_longest_that_would_be_served() -> None:
    async with routes(budget_bytes=40 * 10**6, max_upload_mb=10) as (client, _):
        long = await client.post(TRANSCRIPTIONS, **upload(wav(90), model="voxtral"))
        assert (long.status_code, long.json()["error"]["code"]) == (413, "audio_too_long")
        assert 0 <= long.json()["error"]["longest_audio_s"] < 90


@pytest.mark.usefixtures("token")
@played
async def test_the_token_is_asked_for_everywhere_but_at_the_health_routes() -> None:
    async with routes(host="0.0.0.0", base="http://example.org") as (client, _):
        for path in ("/v1/models", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 401
            for wrong in ("Bearer secre", "Bearer secret2", "secret", "Basic secret"):
                response = await client.get(path, headers={"Authorization": wrong})
                assert (response.status_code, "secret" in response.text) == (401, False)
        good = await client.get("/v1/models", headers={"Authorization": "Bearer secret"})
        assert good.status_code == 200
        assert (await client.get("/health/live")).status_code == 200
        for path in ("/health", "/health/ready"):
            assert (await client.get(path)).json() == {"ready": True, "reason": ""}


@played
async def test_on_loopback_only_its_own_names_are_answered() -> None:
    async with routes() as (client, _):
        for host, status in (
            ("localhost:8000", 200),
            ("127.0.0.1", 200),
            ("[::1]:8000", 200),
            ("127.8.8.8:8000", 200),
            ("testserver", 421),
            ("10.0.0.1:8000", 421),
            ("rebound.example", 421),
            ("localhost.rebound.example:8000", 421),
        ):
            response = await client.get("/v1/models", headers={"Host": host})
            assert response.status_code == status, host


@pytest.mark.usefixtures("token")
@played
async def test_the_log_has_one_line_for_a_request_and_nothing_of_its_contents(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with routes() as (client, _):
        caplog.set_level("INFO", "hybridlab.server")
        headers = {"Authorization": "Bearer secret"}
        first = await client.post(CHAT, json=question(), headers=headers)
        await client.post(TRANSCRIPTIONS, **upload(model="whisper-1"), headers=headers)
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert first.headers["x-request-id"] in lines[0]
        assert "/v1/chat/completions" in lines[0]
        assert lines[0].endswith(" 200")
        for word in ("Who?", "said", "heard", "secret", "passwd"):
            assert word not in " ".join(lines)


@played
async def test_metrics_count_requests_and_phases() -> None:
    async with routes() as (client, _):
        await client.post(CHAT, json=question())
        await client.post(CHAT, content=b"{")
        found = await client.get("/metrics")
        assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = found.text
        assert {family.name for family in text_string_to_metric_families(text)} > {
            "hybridlab_requests",
            "hybridlab_request_seconds",
        }
        route = 'route="/v1/chat/completions"'
        assert f'hybridlab_requests_total{{{route},status="200"}} 1.0' in text
        assert f'hybridlab_requests_total{{{route},status="400"}} 1.0' in text
        assert f"hybridlab_request_seconds_count{{{route}}} 2.0" in text


@played
async def test_live_and_ready_say_what_is_wrong() -> None:
    async with routes() as (client, engine):
        engine.schedulers["llm"].supervisor.failed = "gone for good"
        live = await client.get("/health/live")
        assert (live.status_code, live.json()["reason"]) == (503, "gone for good")
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.post(CHAT, json=question())).status_code == 503


@played
async def test_a_stopping_server_is_not_ready_and_says_when_to_come_again() -> None:
    async with routes() as (client, engine):
        engine.draining = True
        response = await client.post(CHAT, json=question())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")
        assert response.headers["retry-after"]
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 503


@played
async def test_what_the_framework_refuses_has_the_shape_of_every_error() -> None:
    async with routes() as (client, _):
        for method, path, status, code in (
            ("GET", "/nowhere", 404, "not_found"),
            ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["allow"] == "GET"


@played
async def test_head_is_as_get_without_a_body() -> None:
    async with live() as server:
        described = (await server.client.get("/openapi.json")).json()["paths"]
        paths = [path.format(model="asr") for path, route in described.items() if "get" in route]
        assert {"/v1/models", "/v1/models/asr", "/health", "/metrics"} < set(paths)
        for path in (*paths, "/openapi.json", "/", "/page.js"):
            got = await server.client.get(path)
            head = await server.client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
        assert (await server.client.head(CHAT)).status_code == 405


def test_a_fault_of_the_server_has_the_shape_of_every_error() -> None:
    guard = create_app(Engine(Settings()))

    @guard.app.get("/broken")
    async def broken() -> None:
        raise KeyError("x")

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(guard, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/broken")

    answer = asyncio.run(run())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


# --------------------------------------------------------------------------------- the page


@pytest.mark.usefixtures("token")
@played
async def test_every_file_of_the_page_has_its_address_and_no_other_is_served() -> None:
    async with routes() as (client, _):
        for path in ("", *(file.name for file in STATIC.iterdir())):
            response = await client.get(f"/{path}")
            assert response.status_code == 200
            assert response.content == (STATIC / (path or "index.html")).read_bytes()
            assert response.headers["cache-control"] == "no-cache"
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "unsafe" not in policy
        assert (await client.get("/app.py")).status_code == 404


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|localStorage|sessionStorage|document\.cookie", text), path
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", html)
