"""Errors as clients read them: status, code, header, one line; what the log says of them."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import httpx
import numpy as np
import pytest

from benchmarks.endurance.hostile import GOOD, encoded, tone
from hybridlab.processes.worker import Worker
from hybridlab.server import engine as engine_module
from hybridlab.server import errors
from hybridlab.server.app import create_app
from hybridlab.server.audio_decoder import AudioDecoder
from hybridlab.server.errors import ApiError
from hybridlab.server.settings import Settings
from tests.server.fakes import Stage, asr, llm, lost, played, refusal, until
from tests.server.live import (
    CHAT,
    HYBRID,
    TRANSCRIPTIONS,
    live,
    message,
    question,
    routes,
    upload,
    wav,
)

NINE_CHANNELS = encoded(np.stack([tone(1.0)] * 9, axis=1))
FORBIDDEN_NAME = {"Host": "rebound.example"}


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (upload(b"no audio", model="asr"), 400, "bad_audio"),
        (upload(NINE_CHANNELS, model="asr"), 400, "bad_audio"),
        (upload(wav(0.09), model="asr"), 400, "audio_too_short"),
        (upload(model="gpt-9"), 404, "model_not_found"),
        (upload(model="asr") | {"headers": FORBIDDEN_NAME}, 421, "wrong_host"),
        (upload(model="asr", temperature="warm"), 400, "invalid_request"),
    ],
)
@played
async def test_each_refusal_has_its_code(sent: dict[str, object], status: int, code: str) -> None:
    async with routes() as (client, _):
        found = await client.post(TRANSCRIPTIONS, **sent)  # type: ignore[arg-type]
        assert found.status_code == status, found.text
        (error,) = found.json().values()
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
        assert "\n" not in error["message"]


@played
async def test_the_shortest_audio_is_a_tenth_of_a_second() -> None:
    async with routes() as (client, _):
        found = await client.post(TRANSCRIPTIONS, **upload(wav(0.1), model="asr"))
        assert found.status_code == 200


@pytest.mark.usefixtures("token")
@played
async def test_without_its_token_a_request_is_told_how_to_come() -> None:
    async with routes() as (client, _):
        found = await client.post(CHAT, json=question())
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        assert found.headers["www-authenticate"] == "Bearer"


@played
async def test_too_large_an_upload_is_told_with_the_largest_and_base64_may_take_a_third_more() -> (
    None
):
    """What the form and its borders take beside the audio is not counted."""
    almost, more = wav(31.0), wav(34.0)  # 16 bits: 0.99 and 1.09 MB
    async with routes(max_upload_mb=1) as (client, _):
        for sound, status in ((almost, 200), (more, 413)):
            body = question()
            encoded_sound = base64.b64encode(sound).decode()
            body["messages"][0]["content"][0]["input_audio"]["data"] = encoded_sound
            for found in (
                await client.post(TRANSCRIPTIONS, **upload(sound, model="asr")),
                await client.post(CHAT, json=body),
            ):
                assert found.status_code == status
        error = found.json()["error"]
        assert (error["code"], error["largest_upload_bytes"]) == ("upload_too_large", 10**6)
        assert "1 MB" in error["message"]


@pytest.mark.usefixtures("case_server")
@pytest.mark.parametrize(
    ("fault", "status", "code"), [("_swell", 413, "audio_too_large"), ("_hang", 400, "bad_audio")]
)
def test_audio_that_takes_too_much_memory_or_time_to_decode_has_its_code(
    monkeypatch: pytest.MonkeyPatch, fault: str, status: int, code: str
) -> None:
    async def scene() -> ApiError:
        decoder = AudioDecoder(Settings(decode_timeout_s=1 if fault == "_hang" else 20))
        await decoder.start()
        try:
            monkeypatch.setattr("hybridlab.server.audio_decoder.decode_audio", globals()[fault])
            with pytest.raises(ApiError) as caught:
                await decoder.decode(GOOD)
            return caught.value
        finally:
            decoder.close()

    found = asyncio.run(asyncio.wait_for(scene(), 40))
    assert (found.status_code, found.code) == (status, code)


def _swell(data: bytes, max_audio_s: float) -> None:
    np.ones(1 << 34)


def _hang(data: bytes, max_audio_s: float) -> None:
    time.sleep(60)


@played
async def test_before_the_models_are_loaded_every_route_but_health_says_so() -> None:
    transport = httpx.ASGITransport(create_app(Stage(llm()).engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for found in (await client.get("/v1/models"), await client.post(CHAT, json=question())):
            assert (found.status_code, found.json()["error"]["code"]) == (503, "not_ready")
            assert int(found.headers["retry-after"]) >= 1
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert "loading" in ready.json()["reason"]
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        errors.queue_full(3),
        errors.uploads_full(),
        errors.too_many_requests(),
        errors.not_ready("loading"),
        errors.not_ready("stopping", code="stopping"),
        errors.worker_lost("m"),
        errors.answer_changed("m"),
        errors.no_memory("m"),
        errors.memory_taken(1, "the card"),
        errors.upstream_lost("http://a", "lost"),
    ],
    ids=lambda error: error.code,
)
def test_what_may_come_again_is_told_when(error: ApiError) -> None:
    assert error.status_code in (429, 503)
    assert int(error.response().headers["retry-after"]) >= 1


@played
async def test_decoded_audio_of_all_requests_is_eight_hours_at_most() -> None:
    """Samples that take no memory."""
    assert engine_module.MAX_DECODED_S == 8 * 3600
    async with Stage(asr(serve_s=0.1), max_audio_s=10**6, budget_bytes=10**12) as stage:
        hours = [stage.ask(f"{n}", role="asr", seconds=2400) for n in range(12)]  # 8 h
        with pytest.raises(ApiError) as caught:
            stage.ask("more", role="asr", seconds=1)
        assert (caught.value.status_code, caught.value.code) == (429, "queue_full")
        await asyncio.gather(*(job.future for job in hours))
        assert (await stage.ask("later", role="asr", seconds=1).future).text == "said later"


# ------------------------------------------------------------------------------------- the log


@played
async def test_a_fault_of_a_model_is_told_in_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with routes(llm(plan=[RuntimeError("shape mismatch")])) as (client, _):
        found = await client.post(CHAT, json=question())
        assert (found.status_code, found.json()["error"]["code"]) == (500, "internal_error")
        assert found.json()["error"]["type"] == "server_error"
        assert "shape mismatch" not in found.text
        assert "shape mismatch" in caplog.text


@played
async def test_a_client_that_went_away_is_in_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "hybridlab.server")
    async with live(llm(serve_s=0.2)) as server:
        free, whole = server.guard.free_requests, message(CHAT, json.dumps(question()).encode())
        for count, sent in enumerate((whole, whole[:9000]), 1):  # at work, and in its upload
            writer = await server.say(sent)
            await until(lambda: server.guard.free_requests < free)
            writer.close()
            await until(lambda: server.guard.free_requests == free)
            assert sum(line.endswith(" 499") for line in caplog.messages) == count


# ------------------------------------------------------------------------------------ not HTTP


@pytest.mark.parametrize(
    "said", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"]
)
@played
async def test_what_is_no_http_gets_plain_text_and_a_closed_connection(said: bytes) -> None:
    """The second is how TLS begins."""
    async with live() as server:
        found = await server.exchange(said)  # ends as the server closes
        top, _, body = found.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: text/plain" in top.lower()
        assert b"connection: close" in top.lower()
        assert body
        assert (await server.ask()).status_code == 200


# ------------------------------------------------------------------------------- after all else


@played
async def test_a_question_that_cannot_be_answered_is_one_of_hybrid_s_too() -> None:
    async with routes(llm(say=lambda job: " "), asr(say=lambda job: "")) as (client, _):
        for sent in (
            client.post(CHAT, json=question()),
            client.post(HYBRID, **upload(question="Who?")),
        ):
            found = await sent
            assert (found.status_code, found.json()["error"]["code"]) == (422, "empty_output")


@played
async def test_a_disk_that_is_full_keeps_a_worker_from_coming_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It needs a folder for its socket."""
    model = llm(plan=[lost()])

    def switch_to(index: int) -> None:
        with Worker("llm"):
            pass

    monkeypatch.setattr("tempfile.tempdir", "/proc")  # where nobody makes a folder
    model.switch_to = switch_to  # type: ignore[method-assign]
    async with Stage(model) as stage:
        assert (await refusal(stage.ask("a").future)).code == "model_failed"
        assert "cannot be restarted" in stage.engine.failed
