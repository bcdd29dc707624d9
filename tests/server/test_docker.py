"""The container files: read by the tools that judge them, and their services run as processes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from tests.server.containers import DOCKER, ROOT, Container, compose, free_port

BIN = Path(sys.executable).parent
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
CLIP = ROOT / "hybridlab" / "audio" / "clips" / "clip-01.flac"
QUESTION = "Which number is said first?"


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


# -------------------------------------------------------------------------- services, as processes


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    logs = tmp_path_factory.mktemp("containers")
    services = {
        name: service
        for file in ("separate", "single")
        for name, service in compose(file, ON_A_HOST)["services"].items()
        if "profiles" not in service
    }
    ports = {name: free_port() for name in services}
    made = {
        name: Container(service, ports, name, logs / f"{name}.log")
        for name, service in services.items()
    }
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


def wait_until_healthy(container: Container, *, within_s: float = 120.0) -> None:
    """The probe once; until then the same question without a process each."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{container.url}/health/ready", timeout=5.0).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    assert container.healthy(), container.log.read_text()


def send(container: Container, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {ON_A_HOST['HYBRIDLAB_TOKEN']}"}
    return httpx.post(f"{container.url}{path}", headers=headers, timeout=60.0, **request)


def hybrid(container: Container, **form: str) -> httpx.Response:
    return send(
        container,
        "/v1/hybrid",
        data={"question": QUESTION, **form},
        files={"file": ("clip.flac", CLIP.read_bytes())},
    )


def without_id(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "id"}


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in blocks]


def chat(model: str) -> dict[str, Any]:
    audio = base64.b64encode(CLIP.read_bytes()).decode()
    content = [
        {"type": "input_audio", "input_audio": {"data": audio, "format": "flac"}},
        {"type": "text", "text": QUESTION},
    ]
    return {"model": model, "messages": [{"role": "user", "content": content}]}


@pytest.mark.slow
def test_two_servers_behind_a_third_answer_as_one(containers: dict[str, Container]) -> None:
    both = [containers["front"], containers["hybridlab"]]
    apart, single = (without_id(hybrid(one).json()) for one in both)
    assert apart == single
    assert apart["transcript"]["text"]
    streamed = [events(hybrid(one, stream="true").text) for one in both]
    names = [name for name, _ in streamed[0]]
    assert [name for name in names if name != "delta"] == ["transcript", "answer", "done"]
    assert "delta" in names
    assert streamed[0][:-1] == streamed[1][:-1]
    chats = [send(one, "/v1/chat/completions", json=chat("llm")).json() for one in both]
    assert chats[0]["choices"] == chats[1]["choices"]
    assert chats[0]["usage"] == chats[1]["usage"]
    for kind in ("srt", "verbose_json"):
        form = {"model": "whisper-1", "response_format": kind}
        file = {"file": ("clip.flac", CLIP.read_bytes())}
        path = "/v1/audio/transcriptions"
        assert len({send(one, path, data=form, files=file).text for one in both}) == 1


@pytest.mark.slow
def test_a_refusal_is_the_same(containers: dict[str, Container]) -> None:
    noise = {"file": ("clip.flac", b"this is no audio")}
    form = {"question": QUESTION, "stream": "true"}
    replies = [
        send(containers[name], "/v1/hybrid", data=form, files=noise)
        for name in ("front", "hybridlab")
    ]
    assert replies[0].status_code == replies[1].status_code == 400
    assert replies[0].json() == replies[1].json()
    for container in containers.values():
        unauthorised = httpx.post(f"{container.url}/v1/hybrid", timeout=30)
        assert unauthorised.status_code == 401


@pytest.mark.slow
def test_a_killed_asr_is_an_error_until_it_is_back(containers: dict[str, Container]) -> None:
    front, asr = containers["front"], containers["asr"]
    before = without_id(hybrid(front).json())
    asr.kill()
    lost = hybrid(front)
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "upstream_lost")
    assert send(front, "/v1/chat/completions", json=chat("llm")).status_code == 200
    assert not asr.healthy()
    assert not front.healthy()
    reason = httpx.get(f"{front.url}/health/ready", timeout=30).json()["reason"]
    assert reason.startswith(f"the asr at http://127.0.0.1:{asr.port} cannot be reached")
    asr.start()
    wait_until_healthy(asr)
    wait_until_healthy(front)
    assert without_id(hybrid(front).json()) == before
