"""What requests and responses look like: OpenAI's shapes, and the lab's own for both in one call.

The lab decodes without timestamps. So a segment is a window: its start and end are where the audio
was really cut (at the quietest place near every 30 s), and nothing finer is made up.
"""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab import catalog
from hybridlab.server.jobs import Said, Sound
from hybridlab.server.refusals import RefusalError, bad_request

FORMATS = ("json", "verbose_json", "text", "srt", "vtt")


# ------------------------------------------------------------------------------------- requests


def check_language(language: str) -> str:
    if language and language not in catalog.LANGUAGES:
        raise bad_request(
            f"language {language[:20]!r} is not known; write a code of ISO 639-1 like 'en'"
        )
    return language


def check_format(name: str) -> str:
    if name not in FORMATS:
        raise bad_request(
            f"response_format {name[:20]!r} is not known; choose one of: {', '.join(FORMATS)}"
        )
    return name


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
