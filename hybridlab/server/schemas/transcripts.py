"""Transcripts, whole or as the events of a stream, in the formats of OpenAI's transcriptions, and
the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from hybridlab import catalog
from hybridlab.models.transcription import FinishReason, Task, TranscribeOptions
from hybridlab.models.transcription import Segment as TextSegment
from hybridlab.models.transcription import Word as TextWord
from hybridlab.server.jobs import DecodedAudio, InferenceResult
from hybridlab.server.model_names import pocket_words
from hybridlab.server.schemas.base import Answer, OptionalText, Served, absent

#: Why a text may lack words, told beside it.
WARNINGS: dict[FinishReason, str] = {
    "length": "the text was cut at a limit of tokens",
    "early": "the model ended early and left audio unread",
}
#: The header that tells the same where an answer is no JSON.
WARNING_HEADER = "X-Hybridlab-Warning"


class Model(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hybridlab"
    tells_times: bool = Field(description="whether segments and words have times of their own")
    translates: bool = Field(description="whether /v1/audio/translations is served")
    warning: OptionalText = Field(None, description="what the model does not know")


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[Model]


class Duration(Answer):
    """A transcript is counted in seconds of audio."""

    type: Literal["duration"] = "duration"
    seconds: float


class Text(Served):
    text: str = Field(description="'' where nothing is said")
    finish_reason: FinishReason = Field(
        "stop",
        description="stop: the text ended by itself; length: it was cut at a limit of tokens; "
        "early: audio behind it was left unread",
    )
    warning: OptionalText = Field(
        None,
        description="how it ended, unless by itself, what was done to the audio to be heard, and "
        "what the model does not know",
    )


class Transcript(Text):
    usage: Duration


class Word(Answer):
    """Times in seconds."""

    word: str
    start: float
    end: float
    probability: float


OptionalWords = Annotated[list[Word] | SkipJsonSchema[None], Field(exclude_if=absent)]


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
    words: OptionalWords = Field(None, description="where they are asked for")


class Details(Answer):
    task: Task
    language: str | None = Field(
        description="Whisper's code of the language of the text, asked for or detected; null where "
        "the LLM was to detect it, which it does not tell"
    )
    duration: float
    segments: list[VerboseSegment]
    words: OptionalWords = Field(None, description="of all segments, where they are asked for")
    token_ids: list[int] = Field(description="of the text, without timestamps")


class VerboseTranscript(Details, Transcript):
    pass


# -------------------------------------------------------------------------------------- streams


class TranscriptDelta(Answer):
    """More of a transcript; all of them joined are its text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class TranscriptDone(Text):
    type: Literal["transcript.text.done"] = "transcript.text.done"


class VerboseTranscriptDone(Details, TranscriptDone):
    pass


# --------------------------------------------------------------------------- what is made of them


def transcript(result: InferenceResult, audio: DecodedAudio) -> Transcript:
    return Transcript(**text_of(result, audio), usage=Duration(seconds=_rounded(audio.seconds)))


def verbose_transcript(
    result: InferenceResult, audio: DecodedAudio, asked: TranscribeOptions
) -> VerboseTranscript:
    return VerboseTranscript(
        **text_of(result, audio),
        **_details(result, audio, asked),
        usage=Duration(seconds=_rounded(audio.seconds)),
    )


def transcript_done(
    result: InferenceResult, audio: DecodedAudio, asked: TranscribeOptions, *, verbose: bool
) -> TranscriptDone:
    """The last event of a stream."""
    if verbose:
        return VerboseTranscriptDone(**text_of(result, audio), **_details(result, audio, asked))
    return TranscriptDone(**text_of(result, audio))


def warning_of(result: InferenceResult, audio: DecodedAudio) -> str | None:
    """What a reader of the text should know: how it ended, what was done to the audio, and what its
    model does not know."""
    told = (
        WARNINGS.get(result.joined.finish_reason),
        audio.note,
        pocket_words(result.model),
    )
    return "; ".join(filter(None, told)) or None


def segments_of(result: InferenceResult, audio: DecodedAudio) -> Sequence[TextSegment]:
    """Of Whisper its segments, of the LLM the whole text as one."""
    text = result.joined
    if text.segments or not text.text:
        return text.segments
    return (TextSegment(0.0, audio.seconds, text.text, text.tokens),)


def text_of(result: InferenceResult, audio: DecodedAudio) -> dict[str, Any]:
    """What all transcripts tell."""
    return {
        "text": result.text,
        "finish_reason": result.joined.finish_reason,
        "warning": warning_of(result, audio),
        "model": result.model,
        "instead_of": result.instead_of or None,
    }


def _details(
    result: InferenceResult, audio: DecodedAudio, asked: TranscribeOptions
) -> dict[str, Any]:
    segments = [_verbose_segment(*one) for one in enumerate(segments_of(result, audio))]
    spoken = result.joined.language or asked.language
    timed = [word for segment in segments for word in segment.words or ()]
    return {
        "task": asked.task,
        "language": "en" if asked.task == "translate" else spoken or None,
        "duration": _rounded(audio.seconds),
        "segments": segments,
        "words": timed if asked.words else None,
        "token_ids": list(result.joined.tokens),
    }


def _verbose_segment(index: int, segment: TextSegment) -> VerboseSegment:
    return VerboseSegment(
        id=index,
        seek=int(segment.start_s * catalog.MEL_FRAMES_PER_WINDOW / catalog.WINDOW_S),
        start=_rounded(segment.start_s),
        end=_rounded(segment.end_s),
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
        words=[_word(word) for word in segment.words] or None,
    )


def _word(word: TextWord) -> Word:
    return Word(
        word=word.text,
        start=_rounded(word.start_s),
        end=_rounded(word.end_s),
        probability=word.probability,
    )


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
