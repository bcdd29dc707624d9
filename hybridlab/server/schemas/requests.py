"""Bodies of requests: what a client may send."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema

from hybridlab import catalog
from hybridlab.errors import ParameterError
from hybridlab.server.errors import bad_request


def _described(schema: dict[str, Any], **more: Any) -> None:
    """A field that may be left out of a form has no null there, as its default in Python is."""
    schema.pop("default", None)
    schema.update(more)


def _is_file(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError("this is a field of text; send the audio as a file, with a filename")
    return value


Upload = Annotated[
    UploadFile, BeforeValidator(_is_file), Field(json_schema_extra={"format": "binary"})
]
#: What is left when Python strips a text; to it \x1c to \x1f and \x85 are space too.
NO_SPACE = r"[^\s\x1c-\x1f\x85]"
Name = Annotated[str, Field(min_length=1)]
TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
#: Fields of a form beside its one file: a hybrid request may ask many questions.
MAX_FIELDS = 100


@dataclass(frozen=True)
class Refused:
    """Of a field: it is refused, unless its value is empty or one of those that ask for nothing."""

    why: str
    nothing: tuple[Any, ...] = ()

    def check(self, value: Any) -> Any:
        values = [value]
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            values = [value] if value in self.nothing else value  # of a form's field, all of them
        if any(one and one not in self.nothing for one in values):
            raise ValueError(f"{self.why}; leave it out")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        told = {"description": f"refused: {self.why}"}
        if handler(schema).get("type") == "array":
            return {"type": "array", "items": {"enum": ["", *self.nothing]}, **told}
        return {"enum": [None, False, 0, "", [], {}, *self.nothing], **told}


def known_language(text: str) -> str:
    """Whisper's code, '' for what asks for detection."""
    try:
        return catalog.whisper_language(text)
    except ParameterError as error:
        raise ValueError(str(error)) from None


_CODES = catalog.LANGUAGES
#: Any case is right; what is written here is what a description can hold.
_WRITTEN = [
    {"enum": ["", "auto", *_CODES, *(catalog.LANGUAGE_NAMES[code] for code in _CODES)]},
    {"pattern": f"^({'|'.join(_CODES)})-[A-Z]{{2}}$"},
]
Language = Annotated[
    str | SkipJsonSchema[None],
    AfterValidator(known_language),
    Field(
        description="what is spoken: a code or an English name, in any case and with or without a "
        "region (en, English, en-US); auto detects it; empty or left out, as --language says, "
        "which detects it where it names none",
        json_schema_extra=partial(_described, anyOf=_WRITTEN),
    ),
]
Tokens = Annotated[
    Annotated[int, Field(ge=1)] | SkipJsonSchema[None], Field(json_schema_extra=_described)
]


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        raise ValueError("write true or false")
    return value


def _no_speakers(value: Any) -> Any:
    if value == "diarized_json":
        raise ValueError("speakers are not told apart; write verbose_json for segments with times")
    return value


_NO_CHOICE = Refused("audio is always cut at quiet places", ("auto",))
_NO_SPEAKERS = Refused("speakers are not told apart")


def _not_empty(values: Any) -> Any:
    return [value for value in values if value != ""] if isinstance(values, list) else values


Granularities = Annotated[list[Literal["segment", "word"]], BeforeValidator(_not_empty)]


class TranscriptionForm(BaseModel):
    """A form as OpenAI's transcriptions and translations take it. Fields that are not named here
    change nothing, and an empty field is as one left out."""

    file: Upload = Field(
        description="the audio, or a film with sound: FLAC, MP3, MP4, MPEG, MPGA, M4A, OGG, WAV, "
        "WebM and what else libsndfile or FFmpeg reads"
    )
    model: Name = Field(description="an id of /v1/models, or another name of the model")
    language: Language = None
    prompt: str = Field(
        "", description="words that might stand before the audio: names, spelling; the ASR's alone"
    )
    response_format: Annotated[TranscriptFormat, BeforeValidator(_no_speakers)] = Field(
        "json", description="a stream is of json, text or verbose_json"
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: the likeliest tokens, and drawn ones where these fail, if the ASR decodes "
        "with timestamps; above: drawn ones. The LLM takes the likeliest always",
    )
    granularities: Granularities = Field(
        [],
        alias="timestamp_granularities[]",
        description="segment, or word for each word's times beside; with verbose_json, and of an "
        "ASR that decodes with timestamps",
    )
    bare_granularities: Granularities = Field(
        [], alias="timestamp_granularities", description="as timestamp_granularities[]"
    )
    stream: Annotated[bool, BeforeValidator(_flag)] = Field(
        False,
        description="true: events transcript.text.delta, of the ASR one a window, of the LLM as it "
        "is decoded, then .done",
    )
    max_tokens: Tokens = Field(
        None, description="of each window of the ASR, of the whole text of the LLM"
    )
    include: Annotated[
        list[str], Refused("log probabilities are told of segments, in verbose_json")
    ] = Field([], alias="include[]")
    chunking: Annotated[list[str], _NO_CHOICE] = Field([], alias="chunking_strategy")
    chunking_type: Annotated[list[str], _NO_CHOICE] = Field([], alias="chunking_strategy[type]")
    speaker_names: Annotated[list[str], _NO_SPEAKERS] = Field([], alias="known_speaker_names[]")
    speakers: Annotated[list[str], _NO_SPEAKERS] = Field([], alias="known_speaker_references[]")
    keywords: Annotated[list[str], Refused("write them into the prompt")] = Field(
        [], alias="keywords[]"
    )
    languages: Annotated[list[str], Refused("name one language, or none to have it detected")] = (
        Field([], alias="languages[]")
    )

    @property
    def wants_words(self) -> bool:
        return "word" in [*self.granularities, *self.bare_granularities]

    def check(self) -> None:
        """`ApiError` for fields that do not go together."""
        if self.wants_words and self.response_format != "verbose_json":
            raise bad_request(
                "timestamp_granularities[]: times of words are told in verbose_json alone; write "
                "it as response_format"
            )
        if self.stream and self.response_format in ("srt", "vtt"):
            raise bad_request(
                "stream: subtitles are not streamed; write json, text or verbose_json as "
                "response_format"
            )


class HybridForm(BaseModel):
    """An audio and questions about it. An empty field is as one left out."""

    file: Upload = Field(description="the audio, as of /v1/audio/transcriptions")
    question: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": NO_SPACE})]],
        Field(min_length=1, description="again for each question; answered by the LLM"),
    ]
    language: Language = None
    max_tokens: Tokens = Field(None, description="of each answer")
    stream: Annotated[bool, BeforeValidator(_flag)] = Field(
        False, description="true: the events transcript, delta, answer and done"
    )

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


Base64 = Annotated[str, Field(min_length=1, json_schema_extra={"format": "byte"})]


class AudioData(_Strict):
    data: Base64
    #: The file says itself what it is.
    format: str | None = None


def _within(name: str) -> Callable[[Any], Any]:
    """A text alone is the object that has it under this name, so that there is one shape."""
    return lambda value: {name: value} if isinstance(value, str) else value


class AudioPart(_Strict):
    """OpenAI's has an object with base64 data, Mistral's the data alone."""

    type: Literal["input_audio"]
    input_audio: Annotated[
        AudioData, BeforeValidator(_within("data"), json_schema_input_type=AudioData | Base64)
    ]

    @property
    def data(self) -> str:
        return self.input_audio.data


def _data_url(url: str) -> str:
    if not url.lower().startswith("data:"):
        raise ValueError("addresses are never opened; send the audio itself, as a data: URL")
    return url


DataUrl = Annotated[
    str, AfterValidator(_data_url), Field(json_schema_extra={"pattern": "^[dD][aA][tT][aA]:"})
]


class AudioUrl(_Strict):
    url: DataUrl


class AudioUrlPart(_Strict):
    type: Literal["audio_url"]
    audio_url: Annotated[
        AudioUrl, BeforeValidator(_within("url"), json_schema_input_type=AudioUrl | DataUrl)
    ]

    @property
    def data(self) -> str:
        return self.audio_url.url


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


Part = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[AudioPart, Tag("input_audio")]
    | Annotated[AudioUrlPart, Tag("audio_url")],
    Discriminator(
        _kind,
        custom_error_type="part",
        custom_error_message="only parts of the types 'text', 'input_audio' and 'audio_url' are "
        "supported",
    ),
]


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Content = Annotated[list[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[Part])]


class Message(_Strict):
    role: Literal["system", "developer", "user"]
    content: Content


class AssistantTurn(_Strict):
    """What was answered before; null where it called a tool."""

    role: Literal["assistant"]
    content: Content | None = None


Turn = Annotated[Message | AssistantTurn, Field(discriminator="role")]


class StreamOptions(_Strict):
    include_usage: bool | None = None


_NO_TOOLS = Refused("the LLM calls no tools", ("none", "auto"))
_NO_LOGPROBS = Refused("log probabilities are not told")
_NO_WEIGHTS = Refused("decoding is greedy, without weights for tokens")


class ChatBody(_Strict):
    """One audio and a text among the messages, whose texts are read in their order, whoever says
    them. Fields that are not named here change nothing."""

    model: Name = Field(description="an id of /v1/models, or another name of the LLM")
    messages: Annotated[list[Turn], Field(min_length=1)] = Field(
        description="one part input_audio or audio_url (base64 or a data: URL; no address is "
        "opened), and text"
    )
    max_completion_tokens: Count | None = Field(None, description="of the answer")
    max_tokens: Count | None = Field(None, description="as max_completion_tokens")
    stream: bool | None = Field(None, description="true: chunks, then [DONE]")
    stream_options: StreamOptions | None = Field(
        None, description="include_usage: the last chunk tells the tokens"
    )
    n: Annotated[Literal[1], BeforeValidator(_integer)] | None = Field(
        None, description="1: there is one answer"
    )
    temperature: float | None = Field(None, description="changes nothing: decoding is greedy")
    top_p: float | None = Field(None, description="changes nothing: decoding is greedy")
    modalities: Annotated[Any, Refused("answers are text", (["text"],))] = None
    audio: Annotated[Any, Refused("answers are text")] = None
    response_format: Annotated[Any, Refused("answers are plain text", ({"type": "text"},))] = None
    tools: Annotated[Any, _NO_TOOLS] = None
    tool_choice: Annotated[Any, _NO_TOOLS] = None
    functions: Annotated[Any, _NO_TOOLS] = None
    function_call: Annotated[Any, _NO_TOOLS] = None
    logprobs: Annotated[Any, _NO_LOGPROBS] = None
    top_logprobs: Annotated[Any, _NO_LOGPROBS] = None
    stop: Annotated[Any, Refused("an answer ends by itself or at max_tokens")] = None
    logit_bias: Annotated[Any, _NO_WEIGHTS] = None
    presence_penalty: Annotated[Any, _NO_WEIGHTS] = None
    frequency_penalty: Annotated[Any, _NO_WEIGHTS] = None
    web_search_options: Annotated[Any, Refused("no address is opened")] = None

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
        parts = [part for message in self.messages for part in message.content or ()]
        sounds = [part.data for part in parts if not isinstance(part, TextPart)]
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
        return decoded(sounds[0]), question


_DATA_HEAD = re.compile(r"data:[^,]*,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


def decoded(text: str) -> bytes:
    """The bytes of base64 as clients write it: in lines, without its padding, in the alphabet for
    addresses, or as a data: URL. `ApiError` for anything else."""
    with suppress(ValueError):
        return base64.b64decode(text, validate=True)
    head = _DATA_HEAD.match(text)
    data = "".join(text[head.end() if head else 0 :].split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except ValueError:
        raise bad_request("the data of 'input_audio' is not base64", code="bad_audio") from None
