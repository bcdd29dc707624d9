"""A transcript and answers in one response, whole or as the events of a stream."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hybridlab.server.jobs import DecodedAudio, InferenceResult
from hybridlab.server.model_names import pocket_words
from hybridlab.server.schemas.base import Answer, AnswerFinish, OptionalText, Served
from hybridlab.server.schemas.completions import WARNING, finish_reason
from hybridlab.server.schemas.transcripts import Segment, Text, segments_of, text_of


class HybridTranscript(Text):
    event_name: ClassVar[str] = "transcript"
    duration: float
    segments: list[Segment]


class HybridAnswer(Served):
    event_name: ClassVar[str] = "answer"
    index: int
    question: str
    text: str
    finish_reason: AnswerFinish
    warning: OptionalText = Field(None, description=WARNING)


class HybridDelta(Answer):
    """More of an answer; all of them joined are its text."""

    event_name: ClassVar[str] = "delta"
    index: int
    text: str


class HybridDone(Answer):
    event_name: ClassVar[str] = "done"
    id: str


#: What a stream is made of.
HybridEvent = HybridTranscript | HybridDelta | HybridAnswer | HybridDone


class Hybrid(Answer):
    id: str
    transcript: HybridTranscript
    answers: list[HybridAnswer]


def hybrid_transcript(result: InferenceResult, audio: DecodedAudio) -> HybridTranscript:
    return HybridTranscript(
        **text_of(result, audio),
        duration=round(audio.seconds, 3),
        segments=[
            Segment(start=round(one.start_s, 3), end=round(one.end_s, 3), text=one.text)
            for one in segments_of(result, audio)
        ],
    )


def hybrid_answer(index: int, question: str, result: InferenceResult) -> HybridAnswer:
    return HybridAnswer(
        index=index,
        question=question,
        text=result.text,
        finish_reason=finish_reason(result),
        warning=pocket_words(result.model) or None,
        model=result.model,
        instead_of=result.instead_of or None,
    )
