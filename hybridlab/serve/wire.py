"""What requests and responses look like: OpenAI's shapes, and the lab's own for both in one call.

The lab decodes without timestamps. So a segment is a window: its start and end are where the audio
was really cut (at the quietest place near every 30 s), and nothing finer is made up.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab import catalog
from hybridlab.serve.jobs import Said, Sound
from hybridlab.serve.refusals import RefusalError, bad_request

FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
#: A language code as Whisper and Voxtral have them.
LANGUAGE = re.compile(r"[a-z]{2,3}")
HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


# ------------------------------------------------------------------------------------- requests


def check_language(language: str) -> str:
    if language and not LANGUAGE.fullmatch(language):
        raise bad_request(f"language {language[:20]!r} is no ISO 639-1 code; write one like 'en'")
    return language


def check_format(name: str) -> str:
    if name not in FORMATS:
        raise bad_request(
            f"response_format {name[:20]!r} is not known; choose one of: {', '.join(FORMATS)}"
        )
    return name


@dataclass(frozen=True)
class Chat:
    """A question about an audio, as a chat completion asks it."""

    model: str
    audio: bytes
    question: str
    max_new_tokens: int | None
    stream: bool
    #: Of a stream: its last chunk before the end tells the tokens.
    include_usage: bool


#: What a chat completion may ask that greedy decoding of one answer cannot give.
UNSUPPORTED = ("tools", "functions", "logprobs", "audio", "modalities", "response_format")


def read_chat(body: Any) -> Chat:
    """One user message with one `input_audio` and a text; a system message goes before the text.
    `temperature` and `top_p` are accepted and decoding is greedy whatever they say."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise bad_request("the body must be an object with a list of messages")
    for name in UNSUPPORTED:
        if body.get(name):
            raise bad_request(f"{name!r} is not supported here; leave it out")
    if body.get("n", 1) != 1:
        raise bad_request("only one choice is made; set n to 1")
    audio, texts = _parts(body["messages"])
    if audio is None:
        raise bad_request("no message has a part of type 'input_audio' with base64 data")
    question = "\n\n".join(texts)
    if not question:
        raise bad_request("no message has a text; ask something about the audio")
    stream, include_usage = _streaming(body)
    return Chat(
        model=str(body.get("model", "")),
        audio=audio,
        question=question,
        max_new_tokens=_count(body),
        stream=stream,
        include_usage=include_usage,
    )


def _streaming(body: dict[str, Any]) -> tuple[bool, bool]:
    """Whether to stream, and whether the stream tells its tokens."""
    stream, options = body.get("stream") is True, body.get("stream_options")
    if options is None:
        return stream, False
    if not isinstance(options, dict):
        raise bad_request("'stream_options' must be an object like {\"include_usage\": true}")
    if not stream:
        raise bad_request("'stream_options' goes with a stream; set stream to true")
    return stream, options.get("include_usage") is True


def _parts(messages: list[Any]) -> tuple[bytes | None, list[str]]:
    audio, texts = None, []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "system"):
            raise bad_request("only messages of the roles system and user are answered")
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts if isinstance(parts, list) else []:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text":
                texts.append(_text(part.get("text")))
            elif kind == "input_audio":
                if audio is not None:
                    raise bad_request("one audio is answered at a time; send one 'input_audio'")
                audio = _decoded(part.get("input_audio"))
            else:
                raise bad_request(
                    f"a part of type {str(kind)[:20]!r} is not supported; send 'input_audio' and "
                    "'text' (addresses are never opened)"
                )
    return audio, [text for text in texts if text]


def _text(given: Any) -> str:
    """JSON may escape half of a character, which no tokenizer and no response can write."""
    if not isinstance(given, str) or HALF_CHARACTER.search(given):
        raise bad_request("the 'text' of a part must be a text of whole characters")
    return given.strip()


def _decoded(part: Any) -> bytes:
    data = part.get("data") if isinstance(part, dict) else None
    if not isinstance(data, str):
        raise bad_request("'input_audio' needs 'data' in base64")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error is one, and so is text that is not ASCII
        raise bad_request("the data of 'input_audio' is not base64", code="bad_audio") from None


def _count(body: dict[str, Any]) -> int | None:
    asked = body.get("max_completion_tokens", body.get("max_tokens"))
    if asked is None:
        return None
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise bad_request("max_tokens must be a whole number above zero")
    return asked


# ----------------------------------------------------------------------------------- transcripts


@dataclass(frozen=True)
class Segment:
    start_s: float
    end_s: float
    text: str
    tokens: tuple[int, ...]


def segments_of(said: Said, sound: Sound) -> list[Segment]:
    """A segment for each text: Whisper's windows, or the whole audio for Voxtral. Windows without
    words are left out."""
    bounds = sound.bounds_s() if len(said.texts) > 1 else [(0.0, sound.seconds)]
    return [
        Segment(start, end, text.text, text.tokens)
        for (start, end), text in zip(bounds, said.texts, strict=True)
        if text.text
    ]


def plain(said: Said, sound: Sound) -> dict[str, Any]:
    """A transcript as `json`."""
    return {"text": said.text, "usage": duration(sound), **served_by(said)}


def duration(sound: Sound) -> dict[str, Any]:
    """`usage` of a transcript, which is counted in seconds of sound."""
    return {"type": "duration", "seconds": round(sound.seconds, 3)}


def verbose(said: Said, sound: Sound, language: str) -> dict[str, Any]:
    """As OpenAI's `verbose_json`; what the lab does not measure is null, not zero."""
    return {
        "task": "transcribe",
        "language": language or None,
        "duration": round(sound.seconds, 3),
        "text": said.text,
        "segments": [
            _verbose_segment(index, segment)
            for index, segment in enumerate(segments_of(said, sound))
        ],
        "usage": duration(sound),
        **served_by(said),
    }


def _verbose_segment(index: int, segment: Segment) -> dict[str, Any]:
    text = segment.text.encode()
    return {
        "id": index,
        "seek": int(segment.start_s * catalog.MEL_FRAMES_PER_WINDOW / catalog.WINDOW_S),
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": 0.0,
        "avg_logprob": None,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": None,
    }


def served_by(said: Said) -> dict[str, Any]:
    """The model that answered, and the larger one in whose place it did."""
    fallback = {"instead_of": said.instead_of} if said.instead_of else {}
    return {"model": said.model, **fallback}


def server_timing(said: Said) -> str:
    """The header of this name (W3C Server Timing): the wait for the tenant and its work, in ms."""
    return f"wait;dur={1000 * said.waited_s:.3f}, work;dur={1000 * said.worked_s:.3f}"


def srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered from 1, comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(s.start_s, ',')} --> {_clock(s.end_s, ',')}\n{s.text}\n\n"
        for number, s in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT."""
    cues = "".join(
        f"{_clock(s.start_s, '.')} --> {_clock(s.end_s, '.')}\n{_escaped(s.text)}\n\n"
        for s in segments
    )
    return f"WEBVTT\n\n{cues}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"


# --------------------------------------------------------------------------------------- events


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def event(data: dict[str, Any], name: str = "") -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def failed(error: RefusalError) -> str:
    return event(error.as_dict(), "error")


def transcript_part(said: Said, sound: Sound) -> dict[str, Any]:
    """The transcript of a hybrid response."""
    return {
        "text": said.text,
        **served_by(said),
        "duration": round(sound.seconds, 3),
        "segments": [
            {"start": round(s.start_s, 3), "end": round(s.end_s, 3), "text": s.text}
            for s in segments_of(said, sound)
        ],
    }


def models(served: Sequence[str], created: int) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "hybridlab"}
            for name in served
        ],
    }
