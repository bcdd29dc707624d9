"""The container files: read by the tools that judge them, and their services run as processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from typer.main import get_command

from hybridlab.audio import load_clips
from hybridlab.cli.commands import app
from hybridlab.models.http_model import chat_body
from hybridlab.server.healthcheck import ready
from hybridlab.server.settings import TOKEN_VARIABLE, Settings
from tests.server.containers import DOCKER, ROOT, Container, compose, free_port
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS
from tests.workers_at_work import wait_until

BIN = Path(sys.executable).parent
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
CLIP = load_clips()[0]
QUESTION = CLIP.questions[1]


#: A host's: pocket models.
ON_A_HOST = {
    "HYBRIDLAB_LLM_MODEL": "pocket",
    "HYBRIDLAB_LLM_DTYPE": "float32",
    "HYBRIDLAB_ASR_MODEL": "pocket-m",
    "HYBRIDLAB_ASR_BACKEND": "openai-whisper",
    "HYBRIDLAB_ASR_DTYPE": "float32",
    "HYBRIDLAB_DEVICE": "cpu",
    "HYBRIDLAB_TOKEN": "a-token-of-the-tests",
}


# ------------------------------------------------------------------------------- files, judged


def test_hadolint_finds_nothing() -> None:
    ended = subprocess.run(
        [BIN / "hadolint", "--failure-threshold", "info", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.fixture(scope="module")
def schema() -> Any:
    """The compose specification's own, as check-jsonschema ships it."""
    path = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    return jsonschema.validators.validator_for(found)(found)


@pytest.mark.parametrize("name", ["separate", "single"])
def test_the_compose_files_meet_the_published_schema(name: str, schema: Any) -> None:
    schema.validate(yaml.safe_load((DOCKER / f"compose.{name}.yaml").read_text()))
    document = compose(name, ON_A_HOST)
    schema.validate(document)
    service = next(iter(document["services"].values()))
    service["memory_limit"] = service.pop("mem_limit")
    with pytest.raises(jsonschema.ValidationError, match="memory_limit"):
        schema.validate(document)


def test_the_image_is_what_hadolint_does_not_ask_for() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)", last, re.MULTILINE) == ["10001:10001"]
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["hybridlab"]' in last
    assert "VOLUME /cache" in last
    assert "HF_HOME=/cache/" in last


def test_the_image_has_the_pinned_torch() -> None:
    (torch,) = re.findall(r"^ARG TORCH=(.*)", DOCKERFILE, re.MULTILINE)
    assert f"torch=={torch}\n" in (ROOT / "constraints.txt").read_text()


def test_what_is_copied_is_not_ignored() -> None:
    kept = set(re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for words in copied for source in words.split()}
    assert sources == kept
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("name", ["separate", "single"])
def test_only_the_token_is_asked_of_the_user(name: str) -> None:
    text = (DOCKER / f"compose.{name}.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {"HYBRIDLAB_TOKEN"}
    with pytest.raises(KeyError, match="HYBRIDLAB_TOKEN: put a long random token"):
        compose(name, {})
    told = set(re.findall(r"`(HYBRIDLAB_\w+)", (DOCKER / "README.md").read_text()))
    assert set(re.findall(r"\$\{(HYBRIDLAB_\w+)", text)) <= told


@pytest.mark.parametrize("name", ["separate", "single"])
def test_services_are_bounded_and_come_back(name: str) -> None:
    services = compose(name, ON_A_HOST)["services"]
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        if "profiles" not in service:
            assert service["mem_limit"] == service["memswap_limit"]
            assert service["cap_drop"] == ["ALL"]
    doors = [port for service in services.values() for port in service.get("ports", [])]
    assert doors == ["127.0.0.1:8000:8000"]


def test_mps_is_a_profile_whose_pipes_the_models_share() -> None:
    services = compose("separate", ON_A_HOST)["services"]
    assert services["mps"]["profiles"] == ["mps"]
    for name in ("mps", "llm", "asr"):
        assert {"mps:/mps", "shm:/dev/shm"} <= set(services[name]["volumes"])
        assert services[name]["environment"]["CUDA_MPS_PIPE_DIRECTORY"] == "/mps"


@pytest.mark.parametrize("name", ["separate", "single"])
def test_every_option_of_a_service_is_one_that_it_can_be_started_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    for service in compose(name, ON_A_HOST)["services"].values():
        if "profiles" in service:
            continue
        monkeypatch.setenv(TOKEN_VARIABLE, service["environment"][TOKEN_VARIABLE])
        program, *options = service["command"]
        assert program == "serve"
        settings = Settings.from_mapping(command.make_context("serve", options).params)
        assert (settings.host, settings.port) == ("0.0.0.0", 8000)


# -------------------------------------------------------------------------- services, as processes


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    """The three servers of the separate deployment."""
    logs = tmp_path_factory.mktemp("containers")
    services = compose("separate", ON_A_HOST)["services"]
    ports = {name: free_port() for name in ("llm", "asr", "front")}
    made = {name: Container(services[name], ports, name, logs / f"{name}.log") for name in ports}
    for container in made.values():
        container.start()
    try:
        for container in made.values():
            wait_until_healthy(container)
        yield made
    finally:
        for container in made.values():
            container.ask_to_stop()
        ended = {name: container.ended() for name, container in made.items()}
    assert set(ended.values()) == {0}, ended


def wait_until_healthy(container: Container) -> None:
    """The probe once; until then the same question without a process each."""
    wait_until(lambda: ready(container.port), timeout_s=120)
    assert container.healthy(), container.log.read_text()


def send(container: Container, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {ON_A_HOST[TOKEN_VARIABLE]}"}
    return httpx.post(f"{container.url}{path}", headers=headers, timeout=60.0, **request)


def hybrid(container: Container, sound: bytes | None = None, **form: str) -> httpx.Response:
    file = {"file": ("clip.flac", sound or CLIP.path.read_bytes())}
    return send(container, HYBRID, data={"question": QUESTION.text, **form}, files=file)


def chat(container: Container) -> httpx.Response:
    body = chat_body("llm", CLIP.path.read_bytes(), QUESTION.text)
    return send(container, CHAT, json=json.loads(body))


@pytest.mark.slow
def test_two_servers_behind_a_third_answer_as_one(containers: dict[str, Container]) -> None:
    front = containers["front"]
    whole = hybrid(front).json()
    assert whole["transcript"]["text"] == CLIP.text
    assert [answer["text"] for answer in whole["answers"]] == [QUESTION.answer]
    streamed = hybrid(front, stream="true").text
    names = re.findall(r"^event: (\w+)$", streamed, re.MULTILINE)
    assert [name for name in names if name != "delta"] == ["transcript", "answer", "done"]
    assert "delta" in names
    answered = chat(front).json()
    assert answered["choices"][0]["message"]["content"] == QUESTION.answer
    assert answered["usage"]["prompt_tokens"] > 375  # of 30 s of audio
    form = {"model": "whisper-1", "response_format": "srt"}
    file = {"file": ("clip.flac", CLIP.path.read_bytes())}
    subtitles = send(front, TRANSCRIPTIONS, data=form, files=file).text
    assert subtitles.startswith("1\n00:00:00,000 --> ")
    assert subtitles.endswith(f"\n{CLIP.text}\n\n")


@pytest.mark.slow
def test_all_refuse_noise_and_who_has_no_token(containers: dict[str, Container]) -> None:
    refused = hybrid(containers["front"], b"this is no audio", stream="true")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_audio")
    for container in containers.values():
        assert httpx.post(f"{container.url}{HYBRID}", timeout=30).status_code == 401


@pytest.mark.slow
def test_a_killed_asr_is_an_error_until_it_is_back(containers: dict[str, Container]) -> None:
    front, asr = containers["front"], containers["asr"]
    before = hybrid(front).json()["transcript"]
    asr.kill()
    lost = hybrid(front)
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "upstream_lost")
    assert chat(front).status_code == 200
    assert not asr.healthy()
    assert not front.healthy()
    reason = httpx.get(f"{front.url}/health/ready", timeout=30).json()["reason"]
    assert reason.startswith(f"the asr at http://127.0.0.1:{asr.port} cannot be reached")
    asr.start()
    wait_until_healthy(asr)
    wait_until_healthy(front)
    assert hybrid(front).json()["transcript"] == before
