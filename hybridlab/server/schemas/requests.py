"""Bodies of requests: what a client may send."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic.json_schema import SkipJsonSchema, WithJsonSchema

from hybridlab import catalog
from hybridlab.server.errors import bad_request


def _described(schema: dict[str, Any], **more: Any) -> None:
    """A field that may be left out of a form has no null there, as its default in Python is."""
    schema.pop("default", None)
    schema.update(more)


Upload = Annotated[UploadFile, Field(json_schema_extra={"format": "binary"})]
#: What is left when Python strips a text; to it \x1c to \x1f and \x85 are space too.
NO_SPACE = r"[^\s\x1c-\x1f\x85]"
Name = Annotated[str, Field(min_length=1)]
TranscriptFormat = Literal["json", "verbose_json", "text", "srt", "vtt"]
#: Fields of a form beside its one file: a hybrid request may ask many questions.
MAX_FIELDS = 100


def known_language(code: str | None) -> str | None:
    if code and code not in catalog.LANGUAGES:
        raise ValueError(f"{code[:20]!r} is not known; write a code of ISO 639-1 like 'en'")
    return code


Language = Annotated[
    str | SkipJsonSchema[None],
    AfterValidator(known_language),
    Field(
        description="ISO 639-1 code; left out, the server's own (--language).",
        json_schema_extra=partial(_described, enum=["", *catalog.LANGUAGES]),
    ),
]
Tokens = Annotated[
    Annotated[int, Field(ge=1)] | SkipJsonSchema[None], Field(json_schema_extra=_described)
]


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        raise ValueError("write true or false")
    return value


class TranscriptionForm(BaseModel):
    """A form as OpenAI's transcriptions take it; other fields of theirs are not looked at.
    An empty field is as one left out."""

    file: Upload
    model: Name
    language: Language = None
    response_format: TranscriptFormat = "json"
    prompt: Annotated[str, Field(max_length=0, description="not supported")] = ""
    max_tokens: Tokens = None


class HybridForm(BaseModel):
    """An audio and questions about it. An empty field is as one left out."""

    file: Upload
    question: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": NO_SPACE})]], Field(min_length=1)
    ]
    language: Language = None
    max_tokens: Tokens = None
    stream: Annotated[bool, BeforeValidator(_flag)] = False

    @property
    def questions(self) -> list[str]:
        """`ApiError` for an empty one."""
        questions = [text.strip() for text in self.question]
        if not all(questions):
            raise bad_request("'question' is empty; ask something about the audio")
        return questions


# ------------------------------------------------------------------------------ chat completions


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


def _integer(value: Any) -> Any:
    """To JSON Schema 1.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_integer)]


def _encodable(text: str) -> str:
    """JSON may hold half a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("this is no Unicode text (half a surrogate pair)") from None
    return text


class TextPart(_Strict):
    type: Literal["text"]
    text: Annotated[str, AfterValidator(_encodable)]


class AudioData(_Strict):
    data: Annotated[str, Field(min_length=1, json_schema_extra={"format": "byte"})]
    #: The file says itself what it is.
    format: str | None = None


class AudioPart(_Strict):
    type: Literal["input_audio"]
    input_audio: AudioData


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[AudioPart, Tag("input_audio")],
    Discriminator(
        _kind,
        custom_error_type="part",
        custom_error_message="only parts of the types 'input_audio' and 'text' are supported "
        "(addresses are never opened)",
    ),
]


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(_Strict):
    role: Literal["system", "user"]
    content: Annotated[
        list[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[Part])
    ]


class StreamOptions(_Strict):
    include_usage: bool | None = None


def _left_out(value: Any) -> Any:
    if value:
        raise ValueError("this is not supported here; leave it out")
    return value


#: What greedy decoding of one answer cannot give.
Unsupported = Annotated[
    Any, AfterValidator(_left_out), WithJsonSchema({"enum": [None, False, 0, "", [], {}]})
]


class ChatBody(_Strict):
    """One `input_audio` and a text among the messages; a system message goes before the text.
    `temperature` and `top_p` are accepted and decoding is greedy whatever they say."""

    model: Name
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1], BeforeValidator(_integer)] | None = None
    tools: Unsupported = None
    functions: Unsupported = None
    logprobs: Unsupported = None
    audio: Unsupported = None
    modalities: Unsupported = None
    response_format: Unsupported = None

    @property
    def most_tokens(self) -> int | None:
        limit = self.max_completion_tokens
        return self.max_tokens if limit is None else limit

    @property
    def include_usage(self) -> bool:
        """Whether a stream's last chunk before the end tells the tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def read(self) -> tuple[bytes, str]:
        """The audio and what is asked about it. `ApiError` where what no schema tells is wrong: one
        audio, some text, and options that go together."""
        parts = [part for message in self.messages for part in message.content]
        sounds = [part.input_audio.data for part in parts if isinstance(part, AudioPart)]
        texts = [part.text.strip() for part in parts if isinstance(part, TextPart)]
        if len(sounds) > 1:
            raise bad_request("one audio is answered at a time; send one 'input_audio'")
        if not sounds:
            raise bad_request("no message has a part of type 'input_audio' with base64 data")
        question = "\n\n".join(text for text in texts if text)
        if not question:
            raise bad_request("no message has a text; ask something about the audio")
        if self.stream_options is not None and not self.stream:
            raise bad_request("'stream_options' goes with a stream; set stream to true")
        try:
            return base64.b64decode(sounds[0], validate=True), question
        except ValueError:
            raise bad_request("the data of 'input_audio' is not base64", code="bad_audio") from None
