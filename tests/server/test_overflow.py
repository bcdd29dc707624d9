"""An LLM whose numbers overflow gives no empty answer without a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.endurance.server import started
from hybridlab.audio import load_clips
from hybridlab.models.http_model import chat_body
from tests.loud import loud_voxtral

pytestmark = pytest.mark.slow


def test_a_server_whose_numbers_overflow_says_so_and_is_not_ready(tmp_path: Path) -> None:
    """In the dtype that a CPU serves it in."""
    folder = loud_voxtral(tmp_path / "voxtral", "float32")
    sound = min(load_clips(), key=lambda clip: clip.audio_s).path.read_bytes()
    options = ("--llm-weights", "local", "--llm-path", str(folder), "--fallback", "none")
    with (
        started(*options, "--llm-dtype", "float32") as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        assert client.get("/health/ready").status_code == 200
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        (voxtral,) = [name for name in names if "voxtral" in name]

        def heard(model: str) -> httpx.Response:
            form: dict[str, Any] = {"data": {"model": model}, "files": {"file": sound}}
            return client.post("/v1/audio/transcriptions", **form)

        question = json.loads(chat_body(voxtral, sound, "What is said?"))
        for refused in (client.post("/v1/chat/completions", json=question), heard(voxtral)):
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (500, "logits_not_finite")
            assert "overflows in float32: its logits are no finite numbers" in error["message"]
            assert error["message"].endswith("serve it with --llm-dtype bfloat16")
        ready = client.get("/health/ready")
        assert ready.status_code == 503 and "overflows in float32" in ready.json()["reason"]
        assert 'hybridlab_overflows_total{role="llm"} 2.0' in client.get("/metrics").text
        assert heard("whisper-1").json()["text"]  # the other serves on
