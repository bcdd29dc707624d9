"""The very requests that public clients send, each with where its code is, against the real server
on the pocket pair. A client's own way of writing a form (httpx, requests, Node's form-data) is
what it sends; the fields and their order are written out."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from benchmarks.endurance.server import Running
from hybridlab.audio import Clip, load_clips

CLIPS = {clip.id: clip for clip in load_clips()}
FIRST = CLIPS["clip-01"]
SOUND = FIRST.path.read_bytes()
MIME = "audio/flac"


def client_of(server: Running) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def node_form(*parts: tuple[str, str] | tuple[str, str, str, bytes]) -> tuple[bytes, str]:
    """A body as the `form-data` package of Node writes it: a boundary of dashes, no length of a
    part, and for a file its name and type."""
    border = "-" * 26 + "123456789012345678901234"
    body = b""
    for name, *rest in parts:
        body += f'--{border}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if len(rest) == 1:
            body += f"\r\n\r\n{rest[0]}\r\n".encode()
        else:
            filename, kind, data = rest
            body += f'; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'.encode()
            body += data + b"\r\n"  # type: ignore[operator]
    return body + f"--{border}--\r\n".encode(), f"multipart/form-data; boundary={border}"


def post(server: Running, path: str, body: bytes, kind: str, **headers: str) -> Any:
    headers = {"Content-Type": kind, **headers}
    response = httpx.post(f"{server.url}/v1{path}", content=body, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("options", [{}, {"language": "en", "temperature": "0.4"}])
def test_n8n_transcribes(server: Running, options: dict[str, str]) -> None:
    """n8n-io/n8n, packages/@n8n/nodes-langchain/nodes/vendors/OpenAi/v1/actions/audio/
    transcribe.operation.ts"""
    fields = [("model", "whisper-1"), *options.items(), ("file", "data.flac", MIME, SOUND)]
    body, kind = node_form(*fields)  # type: ignore[arg-type]
    found = post(server, "/audio/transcriptions", body, kind, Authorization="Bearer none")
    assert found["text"] == FIRST.text


def test_n8n_translates(server: Running) -> None:
    """n8n-io/n8n, …/v1/actions/audio/translate.operation.ts. The pocket Whisper knows no other
    language than English, in which it has to answer."""
    fields = [("model", "whisper-1"), ("temperature", "0.1"), ("file", "a.flac", MIME, SOUND)]
    body, kind = node_form(*fields)  # type: ignore[arg-type]
    assert post(server, "/audio/translations", body, kind)["text"] == FIRST.text


@pytest.mark.parametrize("language", [None, "en"])
def test_open_webui(server: Running, language: str | None) -> None:
    """open-webui/open-webui, backend/open_webui/routers/audio.py: `requests` with the model and,
    where it is set, a language; the file under the name of its cache."""
    data = {"model": "whisper-1"} | ({"language": language} if language else {})
    response = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        headers={"Authorization": "Bearer none"},
        files={"file": ("7f8e1f4e-2ac1-4d0b-9d0e-2d4a6b8c9d10.flac", SOUND)},
        data=data,
        timeout=60,
    )
    response.raise_for_status()
    assert response.json()["text"] == FIRST.text


@pytest.mark.parametrize("language", ["en", "en-US"])
def test_home_assistant_with_openai_stt(server: Running, language: str) -> None:
    """einToast/openai_stt_ha, custom_components/openai_stt/http_client.py: every field, the prompt
    empty unless it is set, and Home Assistant's language as it is."""
    response = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        headers={"Authorization": "Bearer none"},
        files={
            "file": ("whisper_audio.wav", SOUND, "audio/wav"),
            "model": (None, "gpt-4o-mini-transcribe"),
            "language": (None, language),
            "prompt": (None, ""),
            "temperature": (None, "0"),
            "response_format": (None, "json"),
        },
        timeout=httpx.Timeout(60.0),
    )
    response.raise_for_status()
    assert response.json().get("text", "").strip() == FIRST.text


def test_home_assistant_with_openai_whisper_cloud(server: Running) -> None:
    """fabio-garavini/ha-openai-whisper-stt-api, custom_components/openai_whisper_cloud/stt.py: a
    prompt and a temperature always, neither of which is refused."""
    found = client_of(server).audio.transcriptions.create(
        file=("tmpabc.wav", SOUND), model="whisper-1", language="en", temperature=0, prompt=""
    )
    assert found.text == FIRST.text
    prompted = client_of(server).audio.transcriptions.create(
        file=("tmpabc.wav", SOUND), model="whisper-1", language="en", temperature=0, prompt="two"
    )
    assert prompted.text


def test_home_assistant_s_own_integration(server: Running) -> None:
    """home-assistant/core, homeassistant/components/openai_conversation/stt.py"""
    found = client_of(server).audio.transcriptions.create(
        model="gpt-4o-mini-transcribe",
        file=("a.wav", SOUND),
        response_format="json",
        language="en",  # before the region
        prompt="",
    )
    assert found.text == FIRST.text


def test_litellm(server: Running) -> None:
    """BerriAI/litellm, litellm/llms/openai/transcriptions/whisper_transformation.py: verbose_json
    where no format is asked for, to learn the length; then handler.py through OpenAI's client."""
    raw = client_of(server).audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=("a.flac", SOUND), response_format="verbose_json", timeout=60
    )
    found = raw.parse()
    assert (found.text, round(found.duration, 1)) == (FIRST.text, round(FIRST.audio_s, 1))


@pytest.mark.parametrize(
    ("model", "form"), [("whisper-1", "verbose_json"), ("gpt-4o-mini-transcribe", "json")]
)
@pytest.mark.parametrize("language", ["en", ""])
def test_livekit(server: Running, model: str, form: Any, language: str) -> None:
    """livekit/agents, livekit-plugins/livekit-plugins-openai/livekit/plugins/openai/stt.py: an
    empty language where it is to be detected."""
    found = client_of(server).audio.transcriptions.create(
        file=("file.wav", SOUND, "audio/wav"),
        model=model,
        language=language,
        prompt=openai.omit,
        response_format=form,
        timeout=httpx.Timeout(30, connect=10),
    )
    assert found.text == FIRST.text
    if form == "verbose_json":
        assert found.language == "en"


def test_langchain(server: Running) -> None:
    """langchain-ai/langchain, libs/community/langchain_community/document_loaders/parsers/audio.py:
    `OpenAIWhisperParser`, a BytesIO with a name."""
    part = io.BytesIO(SOUND)
    part.name = "talk.flac_part_0.mp3"
    found = client_of(server).audio.transcriptions.create(model="whisper-1", file=part)
    assert found.text == FIRST.text


# -------------------------------------------------------------------------- openai's own client


def long_clip() -> Clip:
    return max(CLIPS.values(), key=lambda clip: clip.audio_s)


def test_openai_streams_a_transcript_window_by_window(server: Running) -> None:
    """openai/openai-python, README: `stream=True` iterates over events."""
    clip = long_clip()
    whole = client_of(server).audio.transcriptions.create(model="whisper-1", file=clip.path)
    stream = client_of(server).audio.transcriptions.create(
        model="whisper-1", file=clip.path, response_format="json", stream=True
    )
    *deltas, done = list(stream)
    assert {delta.type for delta in deltas} == {"transcript.text.delta"}
    assert len(deltas) >= clip.audio_s // 30
    assert "".join(delta.delta for delta in deltas) == whole.text
    assert (done.type, done.text) == ("transcript.text.done", whole.text)


def test_segments_of_a_model_without_timestamps_are_windows(server: Running) -> None:
    clip = long_clip()
    found = client_of(server).audio.transcriptions.create(
        model="whisper-1", file=clip.path, response_format="verbose_json"
    )
    segments = found.segments or []
    assert len(segments) > clip.audio_s // 30
    assert all(0 < one.end - one.start <= 30.001 for one in segments)
    assert (segments[0].start, round(segments[-1].end, 1)) == (0.0, round(clip.audio_s, 1))


def test_openai_s_types_hold_the_events_of_a_stream(server: Running) -> None:
    from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent

    kinds = {
        "transcript.text.delta": TranscriptionTextDeltaEvent,
        "transcript.text.done": TranscriptionTextDoneEvent,
    }
    for form in ("json", "verbose_json"):
        response = httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": ("a.flac", SOUND)},
            data={"model": "whisper-1", "stream": "true", "response_format": form},
            timeout=60,
        )
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in response.text.split("\n\n") if line]
        assert [event["type"] for event in events] == list(kinds)
        for event in events:
            kinds[event["type"]].model_validate(event, strict=True)
        assert ("segments" in events[-1]) == (form == "verbose_json")


def test_openai_s_types_hold_every_transcript(server: Running) -> None:
    from openai.types.audio import Transcription, TranscriptionVerbose, Translation
    from openai.types.audio.translation_verbose import TranslationVerbose

    for path, form, kind in (
        ("transcriptions", "json", Transcription),
        ("transcriptions", "verbose_json", TranscriptionVerbose),
        ("translations", "json", Translation),
        ("translations", "verbose_json", TranslationVerbose),
    ):
        response = httpx.post(
            f"{server.url}/v1/audio/{path}",
            files={"file": ("a.flac", SOUND)},
            data={"model": "whisper-1", "response_format": form},
            timeout=60,
        )
        found = kind.model_validate(response.json())
        assert found.text == FIRST.text


def test_openai_asks_for_granularities(server: Running) -> None:
    create = client_of(server).audio.transcriptions.create
    found = create(
        model="whisper-1",
        file=("a.flac", SOUND),
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert found.segments
    # the small models never learned timestamps: no words rather than none told
    with pytest.raises(openai.BadRequestError, match="tells no times of words"):
        create(
            model="whisper-1",
            file=("a.flac", SOUND),
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"include": ["logprobs"]}, "log probabilities are told of segments"),
        ({"chunking_strategy": {"type": "server_vad"}}, "cut at quiet places"),
        ({"response_format": "diarized_json"}, "speakers are not told apart"),
        ({"known_speaker_names": ["Ann"]}, "speakers are not told apart"),
        ({"response_format": "srt", "stream": True}, "subtitles are not streamed"),
        ({"timestamp_granularities": ["word"]}, "in verbose_json alone"),
        ({"timestamp_granularities": ["letter"]}, "'segment' or 'word'"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"language": "klingon"}, "language 'klingon' is not known"),
        ({"model": "voxtral", "prompt": "Ann"}, "voxtral-pocket takes none"),
    ],
)
def test_openai_s_client_is_told_what_is_not_served(
    server: Running, fields: dict[str, Any], why: str
) -> None:
    asked: dict[str, Any] = {"model": "whisper-1", "file": ("a.flac", SOUND), **fields}
    with pytest.raises(openai.BadRequestError, match=why) as caught:
        client_of(server).audio.transcriptions.create(**asked)
    assert "\n" not in caught.value.message


def test_what_changes_nothing_is_not_looked_at(server: Running) -> None:
    found = client_of(server).audio.transcriptions.create(
        model="whisper-1",
        file=("a.flac", SOUND),
        chunking_strategy="auto",
        language="auto",
        extra_body={"user": "u", "vad_filter": "true"},
    )
    assert found.text == FIRST.text


def test_openai_retrieves_a_model_by_any_of_its_names(server: Running) -> None:
    models = client_of(server).models
    for name in ("whisper-1", "Whisper-1", "whisper-pocket-m", "gpt-4o-transcribe", "asr"):
        assert models.retrieve(name).id == "whisper-pocket-m"
    assert models.retrieve("voxtral").id == "voxtral-pocket"
    with pytest.raises(openai.NotFoundError, match="voxtral-pocket, whisper-pocket-m") as caught:
        models.retrieve("openai/whisper-large-v3")
    assert caught.value.code == "model_not_found"


def test_openai_translates_by_the_asr_alone(server: Running) -> None:
    create = client_of(server).audio.translations.create
    assert create(model="whisper-1", file=("a.flac", SOUND)).text == FIRST.text
    srt = create(model="whisper-1", file=("a.flac", SOUND), response_format="srt")
    assert "-->" in str(srt)
    with pytest.raises(openai.BadRequestError, match="voxtral-pocket does not translate"):
        create(model="voxtral", file=("a.flac", SOUND))


@pytest.mark.parametrize("most", [1, 3, 445, 448, 1000, 10**9])
@pytest.mark.parametrize("model", ["whisper-1", "voxtral"])
def test_a_limit_of_tokens_is_cut_to_what_the_model_has(
    server: Running, model: str, most: int
) -> None:
    found = client_of(server).audio.transcriptions.create(
        model=model, file=("a.flac", SOUND), language="en", extra_body={"max_tokens": str(most)}
    )
    assert (found.finish_reason == "length") == (most < 9)
    assert ("cut at a limit" in found.model_dump()["warning"]) == (most < 9)
    if most < 9:
        assert FIRST.text.startswith(found.text)
        assert 0 < len(found.text) < len(FIRST.text)
    text = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": ("a.flac", SOUND)},
        data={"model": model, "language": "en", "max_tokens": most, "response_format": "text"},
        timeout=60,
    )
    assert ("cut at a limit" in text.headers["x-hybridlab-warning"]) == (most < 9)
    assert text.text == f"{found.text}\n"
