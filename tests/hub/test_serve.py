"""A server with released weights: fetched before it is ready, and nobody is asked afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import httpx
import pytest

from benchmarks.endurance.server import Running, started
from hybridlab.audio import load_clips
from hybridlab.models.provision import fetch
from hybridlab.server.model_pool import fetched
from tests.hub import repositories as r
from tests.hub.server import Fault, Hub
from tests.hub.test_provision import VOXTRAL, WHISPER, hub_spec

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("machine")]
OPTIONS = (
    *("--llm-model", "mini-3b", "--llm-dtype", "float32"),
    *("--asr-model", "tiny", "--asr-backend", "transformers", "--asr-dtype", "float32"),
    *("--asr-decoding", "plain", "--fallback", "none"),
)


def transcript(server: Running) -> str:
    sound = load_clips()[0].path.read_bytes()
    form = {"model": "whisper-1", "language": "en"}
    url = f"{server.url}/v1/audio/transcriptions"
    answer = httpx.post(url, data=form, files={"file": sound}, timeout=120)
    return str(answer.raise_for_status().json()["text"])


def until(ready: Callable[[], bool], within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_smaller_model_that_cannot_be_had_is_left_out(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    specs = fetched({"llm": [VOXTRAL], "asr": [hub_spec("large-v3"), hub_spec("base"), WHISPER]})
    assert [spec.model for spec in specs["asr"]] == ["large-v3", "tiny"]
    assert [spec.revision for spec in specs["llm"]] == [hub.commit(r.VOXTRAL)]
    assert "no base to fall back to: openai/whisper-base is not open" in caplog.text


def test_it_says_what_it_fetches_until_it_is_ready(hub: Hub) -> None:
    hub.faults.append(Fault("GET /cdn/.*00001-of", delay_s=3.0, times=1))
    with started(*OPTIONS, waits=False) as server:
        until(lambda: server.found("listening on (http://[^,]+)") != [])
        (url,) = server.found("listening on (http://[^,]+)")
        said = f"fetching {r.VOXTRAL}: "
        until(lambda: said in httpx.get(f"{url}/health/ready").text)
        until(lambda: server.found("(serves)") != [])
        assert server.found(f"({said})") != []
        assert transcript(server)


def test_a_dead_hub_is_not_noticed_where_all_is_here(hub: Hub) -> None:
    fetch([VOXTRAL, WHISPER])
    hub.faults.append(Fault(".", drop=True))
    hub.requests.clear()
    with started(*OPTIONS) as server:
        before = transcript(server)
        killed = server.pid_of("asr")
        os.kill(killed, signal.SIGKILL)
        assert transcript(server) == before
        assert server.pid_of("asr") != killed
    assert [line for line in hub.requests if "/models/" in line or "resolve" in line] == []


def test_a_stopped_server_waits_for_no_download(hub: Hub) -> None:
    hub.faults.append(Fault("GET /cdn/.*00001-of", cut_after=1_000, delay_s=1.0))
    with started(*OPTIONS, waits=False) as server:
        until(lambda: server.found("(fetching) ") != [])
        server.process.send_signal(signal.SIGTERM)
        server.ended(within_s=30)
