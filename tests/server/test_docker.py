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
from typer.testing import CliRunner

from hybridlab import catalog
from hybridlab.cli import app
from hybridlab.cli.gateway import gateway as gateway_command
from hybridlab.devices.cores import PLACES
from hybridlab.errors import ParameterError
from hybridlab.planner import Request
from hybridlab.server.compose import QUEUE, largest_services, lines
from hybridlab.server.settings import Settings
from tests.server.containers import DOCKER, ROOT, Container, compose, free_port

BIN = Path(sys.executable).parent
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
CLIP = ROOT / "hybridlab" / "audio" / "clips" / "clip-01.flac"
QUESTION = "Which number is said first?"


def planned(card: str = "t4", **asked: Any) -> dict[str, str]:
    """What `hybridlab plan --compose` prints, read as compose reads it."""
    services = largest_services(
        catalog.card(card), catalog.voxtral("mini-3b"), voxtral_dtype=None, request=Request(**asked)
    )
    rows = [line for line in lines(services) if not line.startswith("#")]
    return dict(row.split("=", 1) for row in rows)


#: A host's: pocket models and what the planner says for a card.
ON_A_HOST = {
    "HYBRIDLAB_VOXTRAL": "pocket",
    "HYBRIDLAB_VOXTRAL_DTYPE": "float32",
    "HYBRIDLAB_WHISPER": "pocket-m",
    "HYBRIDLAB_WHISPER_BACKEND": "openai-whisper",
    "HYBRIDLAB_WHISPER_DTYPE": "float32",
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
    document = compose(name, planned() | ON_A_HOST)
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
def test_every_value_comes_from_the_planner_or_is_the_users(name: str) -> None:
    text = (DOCKER / f"compose.{name}.yaml").read_text()
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required - set(planned()) == {"HYBRIDLAB_TOKEN"}
    with pytest.raises(KeyError, match="HYBRIDLAB_TOKEN: put a long random token"):
        compose(name, planned())


@pytest.mark.parametrize("name", ["separate", "single"])
def test_services_are_bounded_and_come_back(name: str) -> None:
    services = compose(name, planned() | ON_A_HOST)["services"]
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        if "profiles" not in service:
            assert service["mem_limit"] == service["memswap_limit"]
            assert service["cap_drop"] == ["ALL"]
    doors = [port for service in services.values() for port in service.get("ports", [])]
    assert doors == ["127.0.0.1:8000:8000"]


def test_mps_is_a_profile_whose_pipes_the_models_share() -> None:
    services = compose("separate", planned() | ON_A_HOST)["services"]
    assert services["mps"]["profiles"] == ["mps"]
    for name in ("mps", "voxtral", "whisper"):
        assert {"mps:/mps", "shm:/dev/shm"} <= set(services[name]["volumes"])
        assert services[name]["environment"]["CUDA_MPS_PIPE_DIRECTORY"] == "/mps"


def test_the_models_meet_on_one_board_of_cores() -> None:
    services = compose("separate", planned() | ON_A_HOST)["services"]
    for name in ("voxtral", "whisper"):
        assert "--cores-board=/dev/shm/hybridlab-cores" in services[name]["command"]


# ------------------------------------------------------------------------------- the planner's


def test_the_largest_whisper_is_the_planners() -> None:
    values = planned("t4")
    assert values["HYBRIDLAB_WHISPER"] == "large-v3"
    assert values["HYBRIDLAB_WHISPER_DTYPE"] == "float16"
    assert planned("t4", audio_s=120.0)["HYBRIDLAB_WHISPER"] == "turbo"


@pytest.mark.parametrize("card", ["t4", "l4"])
def test_one_more_window_would_not_fit(card: str) -> None:
    services = largest_services(
        catalog.card(card), catalog.voxtral("mini-3b"), voxtral_dtype=None, request=Request()
    )
    longest_s = services.longest_audio_s
    usable = catalog.card(card).usable_bytes
    assert services.highest_bytes(longest_s) <= usable
    assert services.highest_bytes(longest_s + catalog.WINDOW_S) > usable


def test_the_rooms_hold_a_request_of_the_longest_audio() -> None:
    services = largest_services(
        catalog.card("t4"), catalog.voxtral("mini-3b"), voxtral_dtype=None, request=Request()
    )
    values = planned("t4")
    for name, size in services.asked(services.longest_audio_s).items():
        room = float(values[f"HYBRIDLAB_{name.upper()}_ROOM_GB"]) * 1e9
        assert size.expected <= room < size.expected + 1.1e7


def test_what_fits_nowhere_is_one_line() -> None:
    with pytest.raises(ParameterError, match="no Whisper in a container of its own fits beside"):
        planned("t4", audio_s=2400.0)


def test_the_command_prints_the_file() -> None:
    printed = CliRunner().invoke(app, ["plan", "--card", "t4", "--compose"])
    assert printed.exit_code == 0
    rows = [line for line in printed.stdout.splitlines() if not line.startswith("#")]
    assert dict(row.split("=", 1) for row in rows) == planned("t4")
    refused = CliRunner().invoke(app, ["plan", "--compose", "--beams", "5"])
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1


def test_the_queue_is_the_gateways() -> None:
    *_, queue, _, _ = gateway_command.__defaults__ or ()
    assert queue == QUEUE
    assert Settings.model_fields["max_upload_mb"].default == 25.0


# -------------------------------------------------------------------------- services, as processes


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Container]]:
    logs = tmp_path_factory.mktemp("containers")
    services = {
        name: service
        for file in ("separate", "single")
        for name, service in compose(file, planned() | ON_A_HOST)["services"].items()
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


def wait_until_healthy(container: Container, *, within_s: float = 60.0) -> None:
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
def test_the_gateway_says_what_the_tenants_say_alone(containers: dict[str, Container]) -> None:
    found = hybrid(containers["gateway"]).json()
    heard = send(
        containers["whisper"],
        "/v1/audio/transcriptions",
        data={"model": "whisper-1"},
        files={"file": ("clip.flac", CLIP.read_bytes())},
    ).json()
    answered = send(containers["voxtral"], "/v1/chat/completions", json=chat("voxtral")).json()
    assert found["transcript"]["text"] == heard["text"] != ""
    (answer,) = found["answers"]
    assert answer["text"] == answered["choices"][0]["message"]["content"] != ""
    # on the board that both have nobody is at work any more
    board = containers["whisper"].log.parent / "hybridlab-cores"
    assert board.read_bytes() == bytes(PLACES)


@pytest.mark.slow
def test_the_gateway_answers_as_the_single_server(containers: dict[str, Container]) -> None:
    both = [containers["gateway"], containers["hybridlab"]]
    ours, single = (without_id(hybrid(one).json()) for one in both)
    assert ours == single
    ours_streamed, single_streamed = (events(hybrid(one, stream="true").text) for one in both)
    names = [name for name, _ in ours_streamed]
    assert [name for name in names if name != "delta"] == ["transcript", "answer", "done"]
    assert "delta" in names
    assert ours_streamed[:-1] == single_streamed[:-1]


@pytest.mark.slow
def test_requests_go_to_the_server_of_their_model(containers: dict[str, Container]) -> None:
    gateway = containers["gateway"]
    ours = send(gateway, "/v1/chat/completions", json=chat("voxtral-pocket") | {"stream": True})
    assert ours.headers["content-type"].startswith("text/event-stream")
    assert ours.text.endswith("data: [DONE]\n\n")
    subtitles = send(
        gateway,
        "/v1/audio/transcriptions",
        data={"model": "whisper-1", "response_format": "srt"},
        files={"file": ("clip.flac", CLIP.read_bytes())},
    )
    assert subtitles.text.startswith("1\n00:00:00,000 --> ")
    headers = {"Authorization": f"Bearer {ON_A_HOST['HYBRIDLAB_TOKEN']}"}
    models = httpx.get(f"{gateway.url}/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in models] == ["voxtral-pocket", "whisper-pocket-m"]
    unknown = send(gateway, "/v1/chat/completions", json=chat("gpt-4o"))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.slow
def test_a_refusal_comes_through_as_it_was_said(containers: dict[str, Container]) -> None:
    noise = {"file": ("clip.flac", b"this is no audio")}
    form = {"question": QUESTION}
    replies = [
        send(containers[name], "/v1/hybrid", data=form | {"stream": "true"}, files=noise)
        for name in ("gateway", "hybridlab")
    ]
    assert replies[0].status_code == replies[1].status_code == 400
    assert replies[0].json() == replies[1].json()


@pytest.mark.slow
def test_without_the_token_nothing_is_said(containers: dict[str, Container]) -> None:
    for container in containers.values():
        assert httpx.post(f"{container.url}/v1/hybrid").status_code == 401


@pytest.mark.slow
def test_a_killed_whisper_is_an_error_until_it_is_back(containers: dict[str, Container]) -> None:
    gateway, whisper = containers["gateway"], containers["whisper"]
    before = without_id(hybrid(gateway).json())
    whisper.kill()
    for form in ({}, {"stream": "true"}):
        lost = hybrid(gateway, **form)
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "upstream_lost")
    assert send(gateway, "/v1/chat/completions", json=chat("voxtral")).status_code == 200
    assert not whisper.healthy()
    assert not gateway.healthy()
    reason = httpx.get(f"{gateway.url}/health/ready").json()["reason"]
    assert reason.startswith("whisper cannot be reached")
    whisper.start()
    wait_until_healthy(whisper)
    wait_until_healthy(gateway)
    assert without_id(hybrid(gateway).json()) == before
