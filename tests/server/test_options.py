"""What the options of `hybridlab serve` about models and other servers do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hybridlab import catalog
from hybridlab.audio import load_clips
from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError
from hybridlab.models.base import Model
from hybridlab.models.pocket import pocket_dir
from hybridlab.server import model_pool
from hybridlab.server.app import create_app
from hybridlab.server.engine import Engine
from hybridlab.server.model_pool import ModelPool, upstream_scheduler
from hybridlab.server.settings import Settings
from tests.server.fakes import InProcessDecoder, asr, played
from tests.server.live import (
    HYBRID,
    TRANSCRIPTIONS,
    live,
    upload,
)

CLIP = load_clips()[0]
ASKED = CLIP.questions[1]
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


# ---------------------------------------------------------------------------------- commands


def told_commands() -> list[str]:
    """Options of whole commands, and those with a value that the text tells by themselves."""
    text = PAGE.read_text(encoding="utf-8")
    whole = re.findall(r"^hybridlab serve (--.+)$", text, re.MULTILINE)
    return whole + re.findall(r"`(--[\w-]+ [^`]+)`", text)


@pytest.mark.parametrize("options", told_commands())
def test_every_command_of_the_page_is_one_that_is_taken(options: str) -> None:
    """`serve` with it; a name of a size needs the size."""
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    sizes = ["--llm-model", "mini-3b", "--asr-model", "base"] if "=whisper-base" in options else []
    arguments = [*shlex.split(options), *sizes]
    if "mini-3b" in options and not sizes:
        arguments += ["--device", "simulated:t4"]
    settings = Settings.from_mapping(command.make_context("serve", arguments).params)
    for name in re.findall(r"--([\w-]+)", options):
        value = getattr(settings, name.replace("-", "_"))
        assert value != type(settings).model_fields[name.replace("-", "_")].default


def test_the_page_tells_commands() -> None:
    assert len(told_commands()) > 8


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "simulated:t4"])
def test_a_device_is_called_in_each_of_these_ways(device: str) -> None:
    assert Settings(device=device, only="llm").device == device


def test_a_wrong_variant_is_answered_with_all() -> None:
    for facts in catalog.STRATEGIES.values():
        with pytest.raises(ParameterError) as caught:
            Settings.from_mapping({"strategy": facts.name, "variant": "zzz", "asr_model": "tiny"})
        assert all(variant.name in str(caught.value) for variant in facts)


# ------------------------------------------------------------------------------------ models


@pytest.mark.usefixtures("case_server")
def test_options_of_a_model_are_its_worker_s() -> None:
    options = {
        "device": "cpu",
        "llm_model": "mini-3b",
        "llm_weights": "random",
        "llm_path": "/llm",
        "llm_dtype": "float32",
        "attention": "math",
        "asr_model": "base",
        "asr_backend": "transformers",
        "asr_weights": "local",
        "asr_path": "/asr",
        "asr_dtype": "float32",
        "asr_decoding": "plain",
        "seed": 7,
    }
    with closing(ModelPool(Settings.from_mapping(options))) as pool:
        specs = {model.role: model.specs for model in pool.models}
    (mind,), (ear,) = specs["llm"], specs["asr"]
    assert (mind.model, mind.weights, mind.path) == ("mini-3b", "random", "/llm")
    assert (mind.dtype, mind.attention, mind.seed) == ("float32", "math", 7)
    assert (ear.model, ear.backend, ear.weights) == ("base", "transformers", "local")
    assert (ear.path, ear.dtype, ear.asr_decoding) == ("/asr", "float32", "plain")
    assert ear.seed != mind.seed


def test_a_revision_is_of_the_worker_s_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_pool, "fetched", lambda specs, listener: specs)
    options = {"device": "cpu", "llm_model": "mini-3b", "asr_model": "base"}
    options |= {"fallback": "none", "asr_backend": "transformers"}
    revisions = {"llm_revision": "v1", "asr_revision": "v2"}
    with closing(ModelPool(Settings.from_mapping({**options, **revisions}))) as pool:
        found = {model.role: [one.revision for one in model.specs] for model in pool.models}
    assert found == {"llm": ["v1"], "asr": ["v2"]}


@pytest.mark.usefixtures("case_server")
def test_local_weights_are_loaded_from_their_folder() -> None:
    options = {
        "device": "cpu",
        "llm_weights": "local",
        "llm_path": str(pocket_dir("pocket")),
        "asr_model": "pocket-s",
        "asr_weights": "local",
        "asr_path": str(pocket_dir("pocket-s")),
    }
    with closing(ModelPool(Settings.from_mapping(options))) as pool:
        for model in pool.models:
            model.load()
            assert (model.remote.weights_bytes() or 0) > 10**6


@pytest.mark.usefixtures("case_server")
def test_what_is_left_open_is_the_device_s_and_the_backend_s_own() -> None:
    with closing(ModelPool(Settings(device="cpu"))) as pool:
        assert pool.info.dtypes == {"llm": "float32", "asr": "float32"}
        assert {(model.role, model.specs[0].weights) for model in pool.models} == {
            ("llm", "pocket"),
            ("asr", "pocket"),
        }
        assert pool.models[1].specs[0].backend == "openai-whisper"


def test_weights_are_the_hub_s_unless_they_ship_with_the_package() -> None:
    settings = Settings(llm_model="mini-3b", asr_model="base")
    assert settings.source("llm", "mini-3b") == settings.source("asr", "base") == "hub"
    assert Settings().source("llm", "pocket") == Settings().source("asr", "pocket-s") == "pocket"


def test_of_a_size_that_is_named_backend_and_dtype_are_those_of_its_row() -> None:
    """The table of `hybridlab plan`: asr, WER, speed, backend, dtype, …"""
    told = CliRunner().invoke(app, ["plan", "--card", "t4"]).output
    shown = [line.split() for line in told.splitlines() if line.split()[0] in catalog.WHISPERS]
    assert len(shown) > 5
    for size, _, _, backend, dtype, *_ in shown:
        asked = {"llm_model": "mini-3b", "device": "simulated:t4", "asr_model": size}
        assert Settings.from_mapping(asked).asr == (size, backend, dtype)


@pytest.mark.usefixtures("case_server")
def test_each_of_two_that_compute_at_once_has_half_of_the_cores() -> None:
    settings = Settings(device="cpu", strategy="parallel", variant="processes")
    with closing(ModelPool(settings)) as pool:
        assert [model.remote.ask(at_once) for model in pool.models] == [2, 2]


def at_once(model: Model) -> int:
    """In the worker: by how many its cores are divided."""
    return model.device.concurrent_models


# ------------------------------------------------------------------------------- other servers


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The token of the other server, which is not this one's own."""
    (path := tmp_path / "token").write_text("theirs")
    monkeypatch.setenv("HYBRIDLAB_TOKEN", "own")
    monkeypatch.setenv("HYBRIDLAB_UPSTREAM_TOKEN", "theirs")
    yield str(path)


@pytest.mark.usefixtures("case_server")
@played
async def test_one_of_the_two_may_be_local_and_the_other_s_token_another(theirs: str) -> None:
    own = {"Authorization": "Bearer own"}
    async with live(asr(say=lambda job: "heard there"), token_file=theirs) as behind:
        url = f"http://127.0.0.1:{behind.port}"
        engine = Engine(Settings(device="cpu", asr_url=url))
        await engine.start()
        transport = httpx.ASGITransport(create_app(engine))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=own
        ) as client:
            models = (await client.get("/v1/models")).json()["data"]
            assert [one["id"] for one in models] == ["voxtral-pocket", "whisper-pocket-m"]
            both = await client.post(HYBRID, **upload(CLIP.path.read_bytes(), question=ASKED.text))
            assert both.json()["transcript"]["text"] == "heard there"
            assert both.json()["answers"][0]["text"] == ASKED.answer
        await engine.stop()


@played
async def test_a_server_that_is_lost_is_named_until_it_is_back() -> None:
    async with live(asr(say=lambda job: "heard there")) as behind:
        port = behind.port
        engine = Engine(Settings(only="asr", asr_url=f"http://127.0.0.1:{port}"))
        engine.attach({"asr": upstream_scheduler("asr", engine.settings)}, InProcessDecoder())
        await engine.load()
        engine.run()
    transport = httpx.ASGITransport(create_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        lost = await client.post(TRANSCRIPTIONS, **upload(model="asr"))
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "upstream_lost")
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert f"the asr at http://127.0.0.1:{port} cannot be reached" in ready.json()["reason"]
        async with live(asr(say=lambda job: "heard again"), port=port):
            assert (await client.get("/health/ready")).status_code == 200
            found = await client.post(TRANSCRIPTIONS, **upload(model="asr"))
            assert found.json()["text"] == "heard again"
    await engine.stop()
