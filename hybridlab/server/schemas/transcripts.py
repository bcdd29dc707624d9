"""Transcripts, in the formats of OpenAI's transcriptions, and the list of models.

The lab decodes without timestamps. So a segment is a window: its start and end are where the audio
was really cut (at the quietest place near every 30 s), and nothing finer is made up.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

from hybridlab import catalog
from hybridlab.models.base import GenerationResult
from hybridlab.server.jobs import DecodedAudio, InferenceResult
from hybridlab.server.schemas.base import Answer, Served


class Model(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hybridlab"


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[Model]


class Duration(Answer):
    """A transcript is counted in seconds of audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class Transcript(Served):
    text: str
    usage: Duration


class Segment(Answer):
    start: float
    end: float
    text: str


class VerboseSegment(Segment):
    """What the lab does not measure is null, not zero."""

    id: int
    seek: int
    tokens: list[int]
    temperature: float = 0.0
    avg_logprob: None = None
    compression_ratio: float
    no_speech_prob: None = None


class VerboseTranscript(Transcript):
    task: Literal["transcribe"] = "transcribe"
    language: str | None
    duration: float
    segments: list[VerboseSegment]


def transcript(result: InferenceResult, audio: DecodedAudio) -> Transcript:
    return Transcript(
        text=result.text,
        usage=Duration(seconds=round(audio.seconds, 3)),
        model=result.model,
        instead_of=result.instead_of or None,
    )


def verbose_transcript(
    result: InferenceResult, audio: DecodedAudio, language: str
) -> VerboseTranscript:
    segments = [
        _verbose_segment(index, start_s, end_s, text)
        for index, (start_s, end_s, text) in enumerate(text_windows(result, audio))
    ]
    return VerboseTranscript(
        **transcript(result, audio).model_dump(),
        language=language or None,
        duration=round(audio.seconds, 3),
        segments=segments,
    )


def segments_of(result: InferenceResult, audio: DecodedAudio) -> list[Segment]:
    return [
        Segment(start=round(start_s, 3), end=round(end_s, 3), text=text.text)
        for start_s, end_s, text in text_windows(result, audio)
    ]


def text_windows(
    result: InferenceResult, audio: DecodedAudio
) -> list[tuple[float, float, GenerationResult]]:
    """Start and end in seconds, and text: Whisper's windows, or the whole audio for Voxtral.
    Windows without words are left out."""
    bounds = audio.bounds_s() if len(result.texts) > 1 else [(0.0, audio.seconds)]
    windows = zip(bounds, result.texts, strict=True)
    return [(start_s, end_s, text) for (start_s, end_s), text in windows if text.text]


def _verbose_segment(
    index: int, start_s: float, end_s: float, text: GenerationResult
) -> VerboseSegment:
    encoded = text.text.encode()
    return VerboseSegment(
        id=index,
        seek=int(start_s * catalog.MEL_FRAMES_PER_WINDOW / catalog.WINDOW_S),
        start=round(start_s, 3),
        end=round(end_s, 3),
        text=text.text,
        tokens=list(text.tokens),
        compression_ratio=round(len(encoded) / len(zlib.compress(encoded)), 3),
    )


# ----------------------------------------------------------------------------------- subtitles


def srt(segments: Sequence[Segment]) -> str:
    """SubRip: numbered from 1, comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{s.text}\n\n"
        for number, s in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT."""
    cues = "".join(
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{_escaped(s.text)}\n\n" for s in segments
    )
    return f"WEBVTT\n\n{cues}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")


def _clock(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}{point}{milliseconds:03d}"
