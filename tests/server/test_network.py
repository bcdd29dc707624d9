"""Names, hosts and origins by which a server may be called."""

from __future__ import annotations

import pytest

from hybridlab.errors import ParameterError
from hybridlab.server.model_names import known_names
from hybridlab.server.settings import Settings
from tests.server.fakes import asr, llm, played
from tests.server.live import CHAT, TRANSCRIPTIONS, live, question, routes, upload

PAGE = {"Origin": "https://app.example.org"}
OTHER = {"Origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ("whisper-base", "base"),
        ("whisper-base", "whisper-base"),
        ("whisper-base", "asr"),
        ("whisper-base", "openai/whisper-base"),
        ("whisper-base", "Systran/faster-whisper-base"),
        ("whisper-base", "faster-whisper-base"),
        ("whisper-base", "WHISPER-1"),
        ("whisper-base", "gpt-4o-transcribe"),
        ("whisper-base", "gpt-4o-mini-transcribe"),
        ("whisper-base", "gpt-4o-mini-transcribe-2025-12-15"),
        ("whisper-base", "gpt-transcribe"),
        ("whisper-large-v3", "whisper-large-v3"),
        ("whisper-turbo", "whisper-large-v3-turbo"),
        ("whisper-turbo", "openai/whisper-large-v3-turbo"),
        ("whisper-distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
        ("whisper-distil-large-v3", "distil-whisper/distil-large-v3"),
        ("whisper-tiny-random", "tiny"),
    ],
)
def test_a_size_is_known_by_the_names_that_clients_have_for_it(ids: str, name: str) -> None:
    assert name.lower() in known_names("asr", [ids])


@pytest.mark.parametrize(
    "name",
    ["openai/whisper-small", "someone/whisper-base", "whisper-base.en", "whisper-2", "", "v3"],
)
def test_another_size_or_somebody_s_own_is_not(name: str) -> None:
    assert name not in known_names("asr", ["whisper-base"])


def test_the_llm_has_none_of_the_asr_s_names() -> None:
    known = known_names("llm", ["voxtral-mini-3b"])
    assert {"llm", "voxtral", "mini-3b", "voxtral-mini-3b"} < known
    assert "mistralai/voxtral-mini-3b-2507" in known
    assert not {"whisper-1", "", "gpt-4o-transcribe"} & known


@played
async def test_an_alias_is_a_name_like_any_other_and_comes_first() -> None:
    aliases = "stt=whisper-pocket-m, whisper-1 = voxtral"
    async with routes(model_alias=aliases) as (client, _):
        for model, expected in (("STT", "whisper-pocket-m"), ("whisper-1", "voxtral-pocket")):
            found = await client.post(TRANSCRIPTIONS, **upload(model=model))
            assert found.json()["model"] == expected
            assert (await client.get(f"/v1/models/{model}")).json()["id"] == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model_alias": "stt"}, "is no pair; write NAME=ID"),
        ({"model_alias": "stt=whisper-huge"}, "'whisper-huge' is not served; choose one of: vox"),
        ({"model_alias": "stt=asr", "only": "llm"}, "'asr' is not served"),
        ({"cors_origin": "app.example.org"}, "is no origin"),
        ({"cors_origin": "https://app.example.org/page"}, "without a path"),
        ({"allowed_host": "box:8000"}, "without a port"),
        ({"allowed_host": "http://box"}, "is no name"),
        ({"asr_url": "http://a:1", "beams": 5}, "has its own model"),
        ({"asr_url": "http://a:1", "asr_decoding": "plain"}, "has its own model"),
        ({"beams": 0}, "parameter beams"),
        ({"asr_decoding": "words"}, "parameter asr_decoding"),
        ({"language": "klingon"}, "language 'klingon' is not known"),
    ],
)
def test_options_that_make_no_sense_are_one_line(options: dict[str, object], why: str) -> None:
    with pytest.raises(ParameterError, match=why) as caught:
        Settings.from_mapping(options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("token")
def test_an_allowed_host_is_of_a_server_on_loopback() -> None:
    with pytest.raises(ParameterError, match="is for a server on loopback"):
        Settings.from_mapping({"host": "0.0.0.0", "allowed_host": "box"})


# -------------------------------------------------------------------------------------- hosts


@played
async def test_a_server_on_loopback_answers_to_more_names_where_it_is_told_so() -> None:
    async with routes(allowed_host="host.docker.internal, 192.168.1.7") as (client, _):
        for host, status in (
            ("host.docker.internal:8000", 200),
            ("HOST.docker.internal", 200),
            ("192.168.1.7:8000", 200),
            ("localhost", 200),
            ("rebound.example", 421),
        ):
            found = await client.get("/v1/models", headers={"Host": host})
            assert found.status_code == status, host
    message = found.json()["error"]["message"]
    assert "--allowed-host" in message
    assert "--host 0.0.0.0 and a token" in message
    async with routes(allowed_host="*") as (client, _):
        assert (await client.get("/health", headers={"Host": "any.example"})).status_code == 200


# ------------------------------------------------------------------------------------ origins


def preflight(headers: dict[str, str]) -> dict[str, str]:
    """What a browser asks before a script of OpenAI's client may send a form."""
    asked = "authorization, x-stainless-lang, x-stainless-retry-count"
    return headers | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }


@played
async def test_by_default_no_other_page_may_use_the_server() -> None:
    async with routes() as (client, _):
        refused = await client.options(TRANSCRIPTIONS, headers=preflight(PAGE))
        assert refused.status_code == 405
        found = await client.get("/v1/models", headers=PAGE)
        assert "access-control-allow-origin" not in found.headers


@pytest.mark.usefixtures("token")
@played
async def test_pages_of_an_origin_that_is_named_may_use_it_and_read_what_is_refused() -> None:
    """A preflight has no token; all that follows needs one."""
    token = {"Authorization": "Bearer secret"}
    async with routes(cors_origin="https://app.example.org/, http://localhost:3000") as (client, _):
        allowed = await client.options(TRANSCRIPTIONS, headers=preflight(PAGE))
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        refused = await client.options(TRANSCRIPTIONS, headers=preflight(OTHER))
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        for headers, status in (
            (PAGE | token, 200),
            (PAGE, 401),
            (PAGE | token | {"Host": "rebound.example"}, 421),
            (PAGE | token | {"Content-Length": "99999999"}, 413),
        ):
            found = await client.post(TRANSCRIPTIONS, **upload(model="asr"), headers=headers)
            assert found.status_code == status
            assert found.headers["access-control-allow-origin"] == PAGE["Origin"]
            assert "X-Hybridlab-Warning" in found.headers["access-control-expose-headers"]
        other = await client.get("/v1/models", headers=OTHER | token)
        assert "access-control-allow-origin" not in other.headers


@played
async def test_all_origins_may_be_allowed_and_streams_are_read_as_well() -> None:
    async with live(llm(), asr(say=lambda job: "heard"), cors_origin="*") as server:
        for sent in (
            server.client.post(CHAT, json=question(stream=True), headers=PAGE),
            server.client.get("/v1/models", headers=OTHER),
            server.client.get("/nowhere", headers=OTHER),
        ):
            assert (await sent).headers["access-control-allow-origin"] == "*"
