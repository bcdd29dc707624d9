"""Transcripts, in the formats of OpenAI's transcriptions, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from hybridlab import catalog
from hybridlab.models.transcription import FinishReason
from hybridlab.models.transcription import Segment as TextSegment
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
    finish_reason: FinishReason = Field(
        "stop",
        description="stop: the text ended by itself; length: it was cut at a limit of tokens; "
        "early: audio behind it was left unread",
    )
    usage: Duration


class Segment(Answer):
    start: float
    end: float
    text: str


class VerboseSegment(Segment):
    """What is not known is null, not zero: a transcript of the LLM's has no probabilities."""

    id: int
    seek: int
    tokens: list[int]
    temperature: float
    avg_logprob: float | None
    compression_ratio: float | None
    no_speech_prob: float | None


class VerboseTranscript(Transcript):
    task: Literal["transcribe", "translate"] = "transcribe"
    language: str | None
    duration: float
    segments: list[VerboseSegment]
    token_ids: list[int] = Field(description="of the text, without timestamps")


def transcript(result: InferenceResult, audio: DecodedAudio) -> Transcript:
    return Transcript(
        text=result.text,
        finish_reason=result.joined.finish_reason,
        usage=Duration(seconds=round(audio.seconds, 3)),
        model=result.model,
        instead_of=result.instead_of or None,
    )


def verbose_transcript(
    result: InferenceResult, audio: DecodedAudio, language: str
) -> VerboseTranscript:
    text = result.joined
    return VerboseTranscript(
        **transcript(result, audio).model_dump(),
        language=text.language or language or None,
        duration=round(audio.seconds, 3),
        segments=[_verbose_segment(*one) for one in enumerate(segments_of(result, audio))],
        token_ids=list(text.tokens),
    )


def segments_of(result: InferenceResult, audio: DecodedAudio) -> Sequence[TextSegment]:
    """Of Whisper its segments, of the LLM the whole text as one."""
    text = result.joined
    if text.segments or not text.text:
        return text.segments
    return (TextSegment(0.0, audio.seconds, text.text, text.tokens),)


def _verbose_segment(index: int, segment: TextSegment) -> VerboseSegment:
    return VerboseSegment(
        id=index,
        seek=int(segment.start_s * catalog.MEL_FRAMES_PER_WINDOW / catalog.WINDOW_S),
        start=round(segment.start_s, 3),
        end=round(segment.end_s, 3),
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
    )


# ----------------------------------------------------------------------------------- subtitles


def srt(segments: Sequence[TextSegment]) -> str:
    """SubRip: numbered from 1, comma before the milliseconds."""
    return "".join(
        f"{number}\n{_clock(s.start_s, ',')} --> {_clock(s.end_s, ',')}\n{s.text}\n\n"
        for number, s in enumerate(segments, 1)
    )


def vtt(segments: Sequence[TextSegment]) -> str:
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
