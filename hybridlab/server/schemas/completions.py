"""Chat completions, whole or as the chunks of a stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from hybridlab.models.base import TokenUsage
from hybridlab.server.jobs import InferenceResult
from hybridlab.server.model_names import pocket_words
from hybridlab.server.schemas.base import Answer, AnswerFinish, OptionalText
from hybridlab.server.streaming import event

#: Of an answer's field.
WARNING = "what the model does not know"


class Usage(Answer):
    """Tokens: the LLM's prompt with the audio's, and all that were decoded."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(Answer):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(Answer):
    index: Literal[0] = 0
    message: AssistantMessage
    finish_reason: AnswerFinish
    logprobs: None = None
    token_ids: list[int]


class Completion(Answer):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice] = Field(min_length=1, max_length=1)
    usage: Usage
    warning: OptionalText = Field(None, description=WARNING)


class Delta(Answer):
    role: OptionalText = None
    content: OptionalText = None


class ChunkChoice(Answer):
    index: Literal[0] = 0
    delta: Delta
    finish_reason: AnswerFinish | None = None


class Chunk(Answer):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = Field(None, description="with stream_options.include_usage alone")
    warning: OptionalText = Field(None, description=f"{WARNING}; with finish_reason")


def completion(name: str, result: InferenceResult) -> Completion:
    return Completion(
        id=name,
        created=int(time.time()),
        model=result.model,
        choices=[
            Choice(
                message=AssistantMessage(content=result.text),
                finish_reason=finish_reason(result),
                token_ids=list(result.texts[0].tokens),
            )
        ],
        usage=usage(result),
        warning=pocket_words(result.model) or None,
    )


def usage(result: InferenceResult) -> Usage:
    counted = _counted(result)
    return Usage(
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        total_tokens=counted.prompt_tokens + counted.completion_tokens,
    )


def finish_reason(result: InferenceResult) -> AnswerFinish:
    return "stop" if result.texts[0].finish_reason == "stop" else "length"


def _counted(result: InferenceResult) -> TokenUsage:
    counted = result.texts[0].usage
    if counted is None:
        raise RuntimeError(f"{result.model} did not tell the tokens of its answer")
    return counted


DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class ChunkWriter:
    """The events of one streamed completion."""

    name: str
    model: str
    include_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def start(self) -> str:
        return self._choice(Delta(role="assistant", content=""))

    def text(self, piece: str) -> str:
        return self._choice(Delta(content=piece))

    def end(self, result: InferenceResult) -> str:
        """How the answer ended, its tokens where they were asked for, and the end mark."""
        counted = self._event([], usage(result)) if self.include_usage else ""
        warning = pocket_words(result.model) or None
        return self._choice(Delta(), finish_reason(result), warning) + counted + DONE

    def _choice(
        self, delta: Delta, finish: AnswerFinish | None = None, warning: str | None = None
    ) -> str:
        return self._event([ChunkChoice(delta=delta, finish_reason=finish)], None, warning)

    def _event(
        self, choices: list[ChunkChoice], counted: Usage | None, warning: str | None = None
    ) -> str:
        """Where tokens are asked for, each chunk has the field, as OpenAI's have."""
        chunk = Chunk(
            id=self.name,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=counted,
            warning=warning,
        )
        return event(chunk.model_dump(exclude=None if self.include_usage else {"usage"}))
