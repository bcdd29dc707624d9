"""What answers look like: a chat completion, whole or in chunks, and those of a hybrid response."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from hybridlab.models.base import Usage
from hybridlab.server.jobs import Said
from hybridlab.server.wire import event, served_by


def usage(said: Said) -> dict[str, int]:
    """Tokens of an answer: Voxtral's prompt with the audio's, and all that were decoded."""
    counted = _counted(said)
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
    }


def finish_reason(said: Said) -> str:
    return "stop" if _counted(said).ended else "length"


def _counted(said: Said) -> Usage:
    counted = said.texts[0].usage
    if counted is None:
        raise RuntimeError(f"{said.model} did not tell the tokens of its answer")
    return counted


def completion(name: str, said: Said) -> dict[str, Any]:
    """A `chat.completion`."""
    message = {"role": "assistant", "content": said.text}
    return {
        "id": name,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": said.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": finish_reason(said),
                "logprobs": None,
                "token_ids": list(said.texts[0].tokens),
            }
        ],
        "usage": usage(said),
    }


DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The events of one streamed completion, `chat.completion.chunk` each."""

    name: str
    model: str
    include_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def role(self) -> str:
        return self._choice({"role": "assistant", "content": ""})

    def words(self, piece: str) -> str:
        return self._choice({"content": piece})

    def end(self, said: Said) -> str:
        """How the answer ended, its tokens where they were asked for, and the last word."""
        told = self._event([], usage(said)) if self.include_usage else ""
        return self._choice({}, finish_reason(said)) + told + DONE

    def _choice(self, delta: dict[str, str], finish: str | None = None) -> str:
        return self._event([{"index": 0, "delta": delta, "finish_reason": finish}], None)

    def _event(self, choices: list[Any], told: dict[str, int] | None) -> str:
        """Where tokens are asked for, each chunk has the field, as OpenAI's have."""
        return event(
            {
                "id": self.name,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": self.model,
                "choices": choices,
                **({"usage": told} if self.include_usage else {}),
            }
        )


def delta_part(index: int, piece: str) -> dict[str, Any]:
    """More of an answer of a hybrid response; all of them joined are its text."""
    return {"index": index, "text": piece}


def answer_part(index: int, question: str, said: Said) -> dict[str, Any]:
    """An answer of a hybrid response."""
    return {
        "index": index,
        "question": question,
        "text": said.text,
        "finish_reason": finish_reason(said),
        **served_by(said),
    }
