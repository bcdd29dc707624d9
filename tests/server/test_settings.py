"""Options: what is refused before anything is loaded, each in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import Context
from typer.main import get_command
from typer.testing import CliRunner

from hybridlab import catalog
from hybridlab.cli.commands import app
from hybridlab.errors import HybridlabError, ParameterError, UnavailableError
from hybridlab.server.settings import TOKEN_VARIABLE, Settings


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_every_way_of_sharing_is_served_or_refused_with_the_nearest() -> None:
    for facts in catalog.STRATEGIES.values():
        for variant in facts:
            names = {"strategy": facts.name, "variant": variant.name, "asr_model": "tiny"}
            if variant.nearest:
                with pytest.raises(UnavailableError, match=f"use {facts.name}/{variant.nearest}"):
                    Settings.from_mapping(names)
                names["variant"] = variant.nearest
            assert Settings.from_mapping(names).served_variant.name == names["variant"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"host": "0.0.0.0"}, "needs a bearer token"),
        ({"host": "::"}, "needs a bearer token"),
        ({"host": "example.org"}, "needs a bearer token"),
        ({"token_file": "/nowhere/token"}, "cannot be read"),
        ({"strategy": "paralel"}, "did you mean 'parallel'"),
        ({"strategy": "parallel", "variant": "batched"}, "choose one of: threads"),
        ({"strategy": "sequential", "variant": "zzz"}, "choose one of: plain"),
        ({"strategy": "parallel", "variant": "threads"}, "use parallel/processes"),
        ({"strategy": "parallel", "variant": "single-container"}, "use parallel/processes"),
        ({"asr_model": "huge"}, "parameter asr_model = 'huge'"),
        ({"asr_model": "base", "asr_weights": "pocket"}, "weights to hub"),
        ({"llm_model": "mini-3b", "llm_weights": "pocket"}, "weights to hub"),
        ({"fallback": "large-v3"}, "from large to small"),
        ({"fallback": "giant"}, "unknown asr_model"),
        ({"asr_model": "medium", "fallback": "base.en"}, "'base.en', which is for English alone"),
        ({"asr_model": "tiny.en", "language": "de"}, "for English alone: choose 'tiny'"),
        ({"language": "klingon"}, "language 'klingon' is not known"),
        ({"language": "yue"}, "pocket-m does not know Cantonese"),
        ({"only": "llm", "language": "haw"}, "pocket does not know Hawaiian"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"port": 70000}, "parameter port = 70000"),
        ({"batch": 0}, "parameter batch = 0"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
        ({"only": "both"}, "parameter only"),
        ({"only": "asr", "variant": "plain"}, "shares with no other model"),
        ({"colour": "red"}, "unknown option 'colour'"),
        ({"asr_url": "localhost:1"}, "no address of a server"),
        ({"asr_url": "http://a:1", "only": "llm"}, "beside those served, llm"),
        ({"llm_url": "http://a:1", "llm_model": "mini-3b"}, "has its own model"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, object], why: str) -> None:
    with pytest.raises(HybridlabError, match=why) as caught:
        Settings.from_mapping(options)
    assert "\n" not in str(caught.value)


def test_another_address_is_served_with_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert Settings(host="0.0.0.0").token == "secret"
    monkeypatch.delenv(TOKEN_VARIABLE)
    file = tmp_path / "token"
    file.write_text("other\n")
    assert Settings(host="0.0.0.0", token_file=str(file)).token == "other"
    file.write_text("\n")
    with pytest.raises(HybridlabError, match="is empty"):
        Settings(host="0.0.0.0", token_file=str(file))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert Settings(host=host).token == ""


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"language": "German"}, "de"),
        ({"language": "auto"}, ""),
        ({"language": "pt-BR"}, "pt"),
        ({"language": "yue", "asr_model": "large-v3"}, "yue"),
        ({"language": "English", "asr_model": "medium.en"}, "en"),
        ({"language": "yue", "asr_url": "http://127.0.0.1:8001"}, "yue"),
    ],
)
def test_a_language_is_one_that_the_transcriber_knows(options: dict[str, str], code: str) -> None:
    assert Settings.from_mapping(options).language == code


def test_smaller_models_are_those_below_the_asr_s_own_size() -> None:
    def sizes(size: str, **options: object) -> tuple[str, ...]:
        return Settings.from_mapping({"asr_model": size, **options}).fallback_models

    assert sizes("large-v3") == ("medium", "base")
    assert sizes("turbo") == ("medium", "base")
    assert sizes("medium") == ("base",)
    assert sizes("base") == sizes("pocket-s") == ()
    assert sizes("pocket-m") == ("pocket-s",)
    assert sizes("large-v3", fallback="turbo, small") == ("turbo", "small")
    assert sizes("large-v3", fallback="none") == ()
    for chain in ("small", "medium", "tiny, base"):
        with pytest.raises(ParameterError, match="which is no smaller"):
            sizes("small", fallback=chain)


def test_an_asr_that_is_left_open_is_the_pick_for_the_card() -> None:
    def asr(**options: str) -> tuple[str, str, str]:
        return Settings.from_mapping({"llm_model": "mini-3b", **options}).asr

    card = {"device": "simulated:t4"}
    assert asr(**card) == ("large-v3", "transformers", "float16")
    assert asr(**card, asr_dtype="int8") == ("large-v3", "faster-whisper", "int8")
    assert asr(**card, asr_model="large-v3", asr_backend="openai-whisper")[2] == "float16"
    assert asr(**card, strategy="parallel", variant="ctranslate2")[1] == "faster-whisper"
    # no plan is for these: the backend's own, and a size that is named
    assert asr(device="cpu", asr_model="base") == ("base", "openai-whisper", "auto")
    assert asr(**card, asr_model="base", strategy="parallel", variant="whisper-on-cpu")[2] == "auto"
    assert asr(device="cpu", only="llm")[0] == asr(asr_url="http://a:1")[0] == "pocket-m"
    assert Settings().asr[0] == "pocket-m"
    for why, options in {
        "no plan is for this device": {"device": "cpu"},
        "no Whisper fits on NVIDIA T4": {**card, "llm_dtype": "float32"},
    }.items():
        with pytest.raises(ParameterError, match=f"{why}, so none is picked; name one with"):
            asr(**options)


def test_the_pick_for_a_card_imports_no_torch() -> None:
    code = (
        "import sys; from hybridlab.server.settings import Settings\n"
        "Settings.from_mapping({'llm_model': 'mini-3b', 'device': 'simulated:t4'})\n"
        "Settings.from_mapping({'asr_model': 'base'})\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=hidden)


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        ({}, ("llm", "asr")),
        ({"only": "asr"}, ("asr",)),
        ({"only": "llm"}, ("llm",)),
        ({"strategy": "solo", "variant": "two-requests"}, ("llm",)),
        ({"asr_url": "http://a:1", "llm_url": "http://b:2"}, ("llm", "asr")),
    ],
)
def test_who_is_served(options: dict[str, str], roles: tuple[str, ...]) -> None:
    assert Settings.from_mapping(options).roles == roles


def test_every_option_has_a_help_and_the_type_of_its_default() -> None:
    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    params = {one.name: one for one in command.get_params(Context(command))}
    assert set(params) - {"help"} == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert params[name].help.startswith(field.description)
        assert params[name].default == field.default
    assert ", ".join(["auto", *catalog.BACKENDS]) in params["asr_backend"].help


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--whisper", "--asr-model"),
        ("--voxtral-dtype", "--llm-dtype"),
        ("--queue", "--max-queue"),
        ("--room-gb", "--request-memory-gb"),
    ],
)
def test_an_option_that_had_another_name_says_its_new_one(old: str, new: str) -> None:
    for arguments in ([old, "1"], [f"{old}=1"]):
        result = CliRunner().invoke(app, ["serve", *arguments])
        assert (result.exit_code, result.output) == (2, f"hybridlab: {old} is now {new}\n")


def test_the_command_says_in_one_line_what_is_wrong() -> None:
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert result.output.startswith("hybridlab: host '0.0.0.0'")
    assert len(result.output.splitlines()) == 1


def test_a_missing_extra_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridlab.server.run.EXTRA", {"not_there": "not-there"})
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    assert "needs not-there; pip install 'hybridlab[serve]'" in result.output


def test_a_port_in_use_is_named_before_anything_is_loaded() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert f"port {port} (Address already in use); choose another with --port" in result.output
