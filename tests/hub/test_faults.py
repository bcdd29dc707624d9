"""Whatever keeps weights from coming is one line with its reason and with what helps."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from hybridlab.errors import WeightsError
from hybridlab.models import hub as hub_module
from hybridlab.models.fetch_progress import FetchProgress
from hybridlab.models.provision import fetch
from hybridlab.models.source import check_source, weight_files
from tests.hub import repositories as r
from tests.hub.conftest import talk_to
from tests.hub.server import GOOD_TOKEN, Fault, Hub
from tests.hub.test_provision import WHISPER, hub_spec

pytestmark = pytest.mark.usefixtures("machine")
BODY = "GET /cdn/"


def said(**fields: str) -> str:
    """The one line that a fetch ends with."""
    with pytest.raises(WeightsError) as caught:
        fetch([hub_spec(**fields)])
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    assert "Traceback" not in line
    return line


# ---------------------------------------------------------------------------------- tokens


def test_an_open_repository_needs_no_token_that_has_expired(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    fetch([WHISPER])
    assert set(hub.tokens) == {""}


def test_a_closed_one_without_a_token(hub: Hub) -> None:
    hub.gated.add(r.WHISPER)
    line = said()
    assert line.startswith(f"{r.WHISPER} is not open to everybody") and "HF_TOKEN" in line
    assert hub.bodies() == []


def test_a_closed_one_with_a_good_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(r.WHISPER)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    fetch([WHISPER])


def test_a_closed_one_with_a_token_that_has_expired(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(r.WHISPER)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "does not know this token (401)" in said()


def test_a_closed_one_whose_terms_were_not_accepted(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(r.WHISPER)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    hub.faults.append(Fault("resolve", status=403, code="GatedRepo"))
    assert "(403); accept its terms on its page" in said()


# ------------------------------------------------------------------------------- its answers


def test_a_repository_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    assert "openai/whisper-base is not there (404)" in said(model="base")


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "77"}, "in 77 s"),
        ({"RateLimit": '"api";r=0;t=55'}, "in 55 s"),
        ({}, "in a few minutes"),
    ],
)
def test_too_many_requests(hub: Hub, headers: dict[str, str], wait: str) -> None:
    hub.faults.append(Fault("/api/models", status=429, headers=headers))
    line = said()
    assert "too many requests (429)" in line and wait in line
    assert line.endswith("a token lifts the limit for strangers: set HF_TOKEN")


def test_the_readers_token_lifts_the_limit(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    hub.faults.append(Fault("/api/models", status=429, times=1))
    fetch([WHISPER])
    assert GOOD_TOKEN in hub.tokens


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_broken(hub: Hub, status: int) -> None:
    hub.faults.append(Fault("/api/models", status=status))
    assert f"answers with status {status}; try again later" in said()


def test_a_firewall_that_refuses_is_not_taken_for_a_closed_repository(hub: Hub) -> None:
    for door in ("/api/models", BODY):
        hub.faults[:] = [Fault(door, status=403)]
        assert "refuses to answer (403), though it is open: is a proxy or a firewall" in said()


def test_a_file_that_is_listed_and_not_there(hub: Hub) -> None:
    hub.faults.append(Fault("resolve", status=404, code="EntryNotFound"))
    assert "does not give a file that it lists (404)" in said()


def test_a_file_server_that_is_out_of_order_for_a_moment(hub: Hub) -> None:
    """Which the library gives up at once."""
    hub.faults.append(Fault(f"{BODY}.*model.safetensors", status=503, times=2))
    told: list[FetchProgress] = []
    fetch([WHISPER], listener=told.append)
    assert hub.bodies().count("model.safetensors") == 3
    assert "status 503 for model.safetensors, tried again" in {state.note for state in told}
    assert told[-1].done and told[-1].note == ""


def test_a_limit_that_is_waited_out_says_so(hub: Hub) -> None:
    """The library waits, which would look as if nothing happened."""
    hub.faults.append(Fault(BODY, status=429, headers={"Retry-After": "1"}, times=1))
    told: list[FetchProgress] = []
    fetch([WHISPER], listener=told.append)
    assert any(state.note.startswith("Rate limited. Waiting 2") for state in told)
    assert any(state.words().endswith(f"; {state.note}") for state in told if state.note)


# ---------------------------------------------------------------------------------- the line


def test_no_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to("http://nowhere.invalid", monkeypatch)
    assert "its name cannot be resolved" in said()


def test_nobody_listens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    talk_to(f"http://127.0.0.1:{port}", monkeypatch)
    assert "the connection was refused" in said()


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_hub_that_says_nothing(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to(silent, monkeypatch)
    monkeypatch.setattr(hub_module, "HUB_TIMEOUT_S", 0.3)
    assert "no answer in time" in said()


def test_a_hub_that_falls_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault(BODY, delay_s=1.0))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    assert "no answer in time" in said()


def test_a_connection_that_is_closed(hub: Hub) -> None:
    hub.faults.append(Fault("/api/models", drop=True))
    assert "the connection was closed without an answer" in said()


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    talk_to("http://models.invalid", monkeypatch)
    close_session()  # which has read the environment
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    line = said()
    close_session()
    assert "was refused (ConnectError), by way of the proxy in HTTP_PROXY; " in line


def test_a_line_that_breaks_halfway_is_no_captive_portal(hub: Hub) -> None:
    hub.faults.append(Fault(BODY, cut_after=3_000))
    assert "cannot be fetched: the line broke" in said()


def test_a_line_that_keeps_breaking(hub: Hub) -> None:
    hub.faults.append(Fault(BODY, cut_after=0))
    line = said()
    assert "cannot be fetched" in line
    assert hub.bodies().count("model.safetensors") > 1  # tried again before it was said


def test_the_hub_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set; unset it" in said()


# ---------------------------------------------------------------------------------- the disk


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    line = said()
    assert "is full" in line and "HF_HOME" in line


def test_a_cache_under_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    line = said()
    assert "cannot be written; set HF_HOME" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o555)
    line = said()
    assert "cannot be written" in line and "HF_HOME" in line


def test_a_read_only_file_system(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(cache))

    monkeypatch.setattr(os, "makedirs", refuse)
    assert f"{cache} cannot be written; set HF_HOME" in said()


def test_a_cache_that_is_full_needs_no_right_to_write(cache: Path, hub: Hub) -> None:
    fetch([WHISPER])
    for folder, _, _ in os.walk(cache):
        Path(folder).chmod(0o555)
    hub.requests.clear()
    fetch([WHISPER])
    check_source(WHISPER)
    assert hub.requests == []
    for folder, _, _ in os.walk(cache):
        Path(folder).chmod(0o755)


def test_half_a_cache_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its configuration there, which once passed for all of it."""
    (checkpoint,) = fetch([WHISPER])
    (checkpoint.folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in said()
    with pytest.raises(WeightsError, match="is not on this machine yet"):
        check_source(WHISPER)


def test_a_file_that_is_damaged_on_its_way(hub: Hub) -> None:
    """Of the right length: its head tells, and what is in it only its sum."""
    hub.faults.append(Fault(f"{BODY}.*model.safetensors", corrupt=True, times=2))
    assert "model.safetensors is damaged; `hybridlab fetch PRESET --verify` fetches it" in said()
    with pytest.raises(WeightsError, match=r"safetensors is damaged; this disk or what lies"):
        fetch([WHISPER], verify=True)
    fetch([WHISPER], verify=True)
    assert weight_files(WHISPER)


def test_a_small_file_is_summed_without_being_asked_to(hub: Hub) -> None:
    """Its length is right, and it has no head that would tell."""
    hub.faults.append(Fault(r"GET .*resolve/.*/tokenizer\.json", corrupt=True, times=1))
    assert "tokenizer.json is damaged; `hybridlab fetch PRESET --verify`" in said()
    fetch([WHISPER], verify=True)


def test_a_damaged_file_that_is_loaded_is_named_with_the_cure() -> None:
    from hybridlab.devices import CpuDevice
    from hybridlab.models import make_asr

    (checkpoint,) = fetch([WHISPER])
    file = checkpoint.folder / "tokenizer.json"
    file.resolve().write_text("{")
    with pytest.raises(WeightsError) as caught:
        make_asr(WHISPER, CpuDevice()).load()
    assert str(checkpoint.folder) in str(caught.value)
    assert "hybridlab fetch PRESET --verify" in str(caught.value)


# --------------------------------------------------------------------------- the command line


def test_the_command_says_it_in_one_line(hub: Hub, machine: dict[str, str], tmp_path: Path) -> None:
    preset = tmp_path / "own.yaml"
    preset.write_text("asr_model: tiny\nasr_backend: transformers\nasr_weights: hub\n")
    command = [sys.executable, "-m", "hybridlab.cli", "fetch", str(preset), "--only", "00"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more],
            env={**os.environ, **machine},
            capture_output=True,
            text=True,
            check=False,
        )

    hub.faults.append(Fault("/api/models", status=503))
    failed = run()
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"hybridlab: {r.WHISPER} answers with status 503")
    hub.faults.clear()
    asked = run("--dry-run")
    assert "to fetch; free: " in asked.stdout and hub.bodies() == []
    fetched = run()
    assert fetched.returncode == 0, fetched.stderr
    assert "to fetch" in fetched.stdout
    hub.requests.clear()
    assert "are here" in run().stdout
    assert not any("/api/models" in line for line in hub.requests) and hub.bodies() == []
    shutil.rmtree(Path(machine["HF_HOME"]))
