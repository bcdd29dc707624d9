"""The container files: read by the tools that judge them, and their services run as processes."""

from __future__ import annotations

import json
import os
import re
import socket
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
from hybridlab.processes.fork_server import ADDRESS_VARIABLE, CaseServer
from hybridlab.server.healthcheck import ready
from hybridlab.server.settings import TOKEN_VARIABLE, Settings
from tests.server.live import CHAT, HYBRID, TRANSCRIPTIONS
from tests.workers_at_work import wait_until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
#: `${NAME}`, `${NAME:-default}`, `${NAME:?reason}`, as the compose specification has them.
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")
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


def compose(name: str, values: dict[str, str]) -> dict[str, Any]:
    """A parsed file with its variables filled in; `KeyError` with the file's own words where a
    value that it requires is missing."""

    def given(found: re.Match[str]) -> str:
        text = values.get(found["name"], "")
        if not text and found["kind"] == "?":
            raise KeyError(f"{found['name']}: {found['rest']}")
        return text or found["rest"] or '""'

    text = (DOCKER / f"compose.{name}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(VARIABLE.sub(given, text))
    return document


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

CLIP = load_clips()[0]
QUESTION = CLIP.questions[1]


class Service:
    """One service as a process: its own command, environment and health check, with the image's
    entrypoint, loopback for the container's address and a free port for the container's. What its
    workers are forked from is that of all tests, which has imported torch already."""

    def __init__(self, facts: dict[str, Any], name: str, ports: dict[str, int]) -> None:
        self.port = ports[name]
        local = {
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=8000": f"--port={self.port}",
            '"8000"': f'"{self.port}"',
        } | {f"http://{other}:8000": f"http://127.0.0.1:{port}" for other, port in ports.items()}
        text = json.dumps(facts)
        for old, new in local.items():
            text = text.replace(old, new)
        self.facts = json.loads(text)
        kept = {key: os.environ[key] for key in ("PATH", "HOME", ADDRESS_VARIABLE)}
        self.environment = {**kept, **self.facts["environment"], "PYTHONPATH": str(ROOT)}

    def start(self) -> None:
        command = [sys.executable, "-m", "hybridlab.cli", *self.facts["command"]]
        self.process = subprocess.Popen(command, env=self.environment)

    def healthy(self) -> bool:
        """What the service's own health check says."""
        kind, program, *words = self.facts["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        command = [sys.executable, *words]
        return subprocess.run(command, env=self.environment, check=False).returncode == 0

    def wait_until_healthy(self) -> None:
        """The probe once; until then the same question without a process each."""
        assert wait_until(lambda: ready(self.port), timeout_s=120)
        assert self.healthy()

    def send(self, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ON_A_HOST[TOKEN_VARIABLE]}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.post(url, timeout=60.0, **{"headers": headers, **request})

    def hybrid(self, sound: bytes | None = None, **form: str) -> httpx.Response:
        file = {"file": ("clip.flac", sound or CLIP.path.read_bytes())}
        return self.send(HYBRID, data={"question": QUESTION.text, **form}, files=file)

    def chat(self) -> httpx.Response:
        body = chat_body("llm", CLIP.path.read_bytes(), QUESTION.text)
        return self.send(CHAT, json=json.loads(body))


@pytest.fixture
def separate(case_server: CaseServer) -> Iterator[dict[str, Service]]:
    """The three servers of the separate deployment."""
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ("llm", "asr", "front")}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    for listener in listeners.values():
        listener.close()
    services = compose("separate", ON_A_HOST)["services"]
    made = {name: Service(services[name], name, ports) for name in ports}
    for service in made.values():
        service.start()
    try:
        for service in made.values():
            service.wait_until_healthy()
        yield made
        for service in made.values():
            service.process.terminate()  # the signal that the Dockerfile names
        assert [service.process.wait(20) for service in made.values()] == [0, 0, 0]
    finally:
        for service in made.values():
            service.process.kill()


@pytest.mark.slow
def test_two_servers_answer_as_one_and_a_killed_one_is_an_error_until_it_is_back(
    separate: dict[str, Service],
) -> None:
    front, asr = separate["front"], separate["asr"]
    whole = front.hybrid().json()
    assert whole["transcript"]["text"] == CLIP.text
    assert [answer["text"] for answer in whole["answers"]] == [QUESTION.answer]
    streamed = re.findall(r"^event: (\w+)$", front.hybrid(stream="true").text, re.MULTILINE)
    assert [name for name in streamed if name != "delta"] == ["transcript", "answer", "done"]
    answered = front.chat().json()
    assert answered["choices"][0]["message"]["content"] == QUESTION.answer
    assert answered["usage"]["prompt_tokens"] > 375  # of 30 s of audio
    form = {"model": "whisper-1", "response_format": "srt"}
    file = {"file": ("clip.flac", CLIP.path.read_bytes())}
    subtitles = front.send(TRANSCRIPTIONS, data=form, files=file).text
    assert subtitles.startswith("1\n00:00:00,000 --> ")
    cues = [cue.splitlines()[2:] for cue in subtitles.strip().split("\n\n")]
    assert " ".join(line for cue in cues for line in cue) == CLIP.text
    refused = front.hybrid(b"this is no audio", stream="true")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_audio")
    assert {s.send(HYBRID, headers={}).status_code for s in separate.values()} == {401}

    asr.process.kill()
    asr.process.wait()
    lost = front.hybrid()
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "upstream_lost")
    assert front.chat().status_code == 200
    assert not asr.healthy()
    assert not front.healthy()
    reason = httpx.get(f"http://127.0.0.1:{front.port}/health/ready").json()["reason"]
    assert reason.startswith(f"the asr at http://127.0.0.1:{asr.port} cannot be reached")
    asr.start()
    asr.wait_until_healthy()
    front.wait_until_healthy()
    assert front.hybrid().json()["transcript"] == whole["transcript"]
