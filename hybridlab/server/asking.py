"""What a gateway asks of its two servers for one hybrid response."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from hybridlab.server.http import Part, under_way
from hybridlab.server.upstream import Upstream

TRANSCRIPTIONS = "/v1/audio/transcriptions"
COMPLETIONS = "/v1/chat/completions"


async def hybrid_parts(
    whisper: Upstream,
    voxtral: Upstream,
    sound: bytes,
    language: str | None,
    questions: Sequence[Question],
) -> AsyncGenerator[Part, None]:
    """The parts, each as soon as it is there, the transcript first. Leaving early ends what is
    still under way."""
    asking = [
        _streamed(voxtral, question) if question.stream else _answered(voxtral, question)
        for question in questions
    ]
    async with under_way(*asking) as answers:
        yield "transcript", await _transcribed(whisper, sound, language)
        async for part in answers:
            yield part


async def _transcribed(whisper: Upstream, sound: bytes, language: str | None) -> dict[str, Any]:
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    if language is not None:
        form["language"] = language
    files = {"file": ("audio", sound)}
    with whisper.clocked(TRANSCRIPTIONS):
        said = await whisper.object("POST", TRANSCRIPTIONS, data=form, files=files)
    return _transcript_part(said)


async def _answered(voxtral: Upstream, question: Question) -> AsyncIterator[Part]:
    with voxtral.clocked(COMPLETIONS):
        said = await voxtral.object("POST", COMPLETIONS, **question.request)
    choice = said["choices"][0]
    text = choice["message"]["content"]
    yield "answer", _answer_part(question, said["model"], text, choice["finish_reason"])


async def _streamed(voxtral: Upstream, question: Question) -> AsyncIterator[Part]:
    """Its words as they come, and all of it."""
    text, model, finish = "", "", ""
    with voxtral.clocked(COMPLETIONS):
        asked = voxtral.asked("POST", COMPLETIONS, **question.request)
        async with asked as answer, aclosing(voxtral.events(answer)) as chunks:
            async for chunk in chunks:
                model = chunk["model"]
                for choice in chunk["choices"]:
                    finish = choice["finish_reason"] or finish
                    if piece := choice["delta"].get("content"):
                        text += piece
                        yield "delta", {"index": question.index, "text": piece}
    yield "answer", _answer_part(question, model, text, finish)


class Question:
    """The body of a chat completion about an audio, whose base64 all questions share."""

    def __init__(
        self, index: int, text: str, data: bytes, max_tokens: int | None, *, stream: bool
    ) -> None:
        self.index = index
        self.text = text
        self.stream = stream
        audio = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": [audio, {"type": "text", "text": text}]}],
            "model": "voxtral",
            "stream": stream,
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        head, mark, tail = json.dumps(body).encode().partition(b'"data": "')
        self.pieces = (head + mark, data, tail)
        length = sum(len(piece) for piece in self.pieces)
        self.headers = {"Content-Type": "application/json", "Content-Length": str(length)}

    @property
    def request(self) -> dict[str, Any]:
        return {"content": self, "headers": self.headers}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def _transcript_part(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of a `verbose_json` what a hybrid response has of it."""
    kept = ("text", "model", "instead_of", "duration")
    segments = [{key: part[key] for key in ("start", "end", "text")} for part in said["segments"]]
    return {**{key: said[key] for key in kept if key in said}, "segments": segments}


def _answer_part(question: Question, model: str, text: str, finish: str) -> dict[str, Any]:
    return {
        "index": question.index,
        "question": question.text,
        "text": text,
        "finish_reason": finish,
        "model": model,
    }
