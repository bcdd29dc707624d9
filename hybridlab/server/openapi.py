"""What the routes say of themselves at `/openapi.json`: their answers, refusals and streams.

Bodies of requests are described where they are read (`hybridlab.server.bodies`). Nothing here is
looked at to answer a request; tests send what this allows and forbids, and compare.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from hybridlab.server.bodies import ChatBody, HybridForm, TranscriptionForm

Responses = dict[int | str, dict[str, Any]]
#: Where FastAPI keeps the schema of a model.
REF = "#/components/schemas/{model}"


class _Told(BaseModel):
    """A body that says this and nothing else."""

    model_config = ConfigDict(extra="forbid")


# -------------------------------------------------------------------------------------- refusals


class ErrorDetail(_Told):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str
    longest_audio_s: float | SkipJsonSchema[None] = Field(None, description="of audio_too_long")
    largest_upload_bytes: int | SkipJsonSchema[None] = Field(
        None, description="of upload_too_large"
    )


class Error(_Told):
    error: ErrorDetail


RETRY_AFTER = {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}
WHY = {
    400: "the request makes no sense, or its audio cannot be decoded",
    401: "the bearer token is missing or wrong",
    404: "the model is not served",
    408: "the upload did not end in time",
    413: "the upload or its audio is larger or longer than what is served",
    421: "the server listens on loopback and was called by another name",
    422: "the model made no words of this audio",
    429: "too many requests wait already",
    500: "a fault of the server, whose log says why",
    502: "a server behind the gateway broke off or made no sense",
    503: "it cannot be answered now (loading, stopping, crowded, out of memory, a worker lost)",
    504: "no answer in time",
}


def _refusals(*statuses: int) -> Responses:
    error = {"application/json": {"schema": {"$ref": REF.format(model=Error.__name__)}}}
    found: Responses = {
        status: {"content": error, "description": WHY[status]} for status in (421, 500, *statuses)
    }
    for status in {429, 502, 503} & set(found):
        found[status]["headers"] = {"Retry-After": RETRY_AFTER}
    if 401 in found:
        challenge = {"schema": {"type": "string", "const": "Bearer"}, "required": True}
        found[401]["headers"] = {"WWW-Authenticate": challenge}
    return found


# --------------------------------------------------------------------------------------- answers


class Model(_Told):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Told):
    object: Literal["list"]
    data: list[Model]


class Duration(_Told):
    type: Literal["duration"]
    seconds: float


class _Served(_Told):
    model: str
    instead_of: str | SkipJsonSchema[None] = Field(
        None, description="the larger model in whose place this one answered"
    )


class Transcript(_Served):
    text: str
    usage: Duration


class Segment(_Told):
    start: float
    end: float
    text: str


class VerboseSegment(Segment):
    id: int
    seek: int
    tokens: list[int]
    temperature: float
    avg_logprob: None
    compression_ratio: float
    no_speech_prob: None


class VerboseTranscript(_Served):
    task: Literal["transcribe"]
    language: str | None
    duration: float
    text: str
    segments: list[VerboseSegment]
    usage: Duration


class Usage(_Told):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(_Told):
    role: Literal["assistant"]
    content: str


FinishReason = Literal["stop", "length"]


class Choice(_Told):
    index: Literal[0]
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: None
    token_ids: list[int]


class Completion(_Told):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice] = Field(min_length=1, max_length=1)
    usage: Usage


class Delta(_Told):
    role: Literal["assistant"] | SkipJsonSchema[None] = None
    content: str | SkipJsonSchema[None] = None


class ChunkChoice(_Told):
    index: Literal[0]
    delta: Delta
    finish_reason: FinishReason | None


class Chunk(_Told):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = Field(None, description="with stream_options.include_usage alone")


class HybridTranscript(_Served):
    text: str
    duration: float
    segments: list[Segment]


class HybridAnswer(_Served):
    index: int
    question: str
    text: str
    finish_reason: FinishReason


class Hybrid(_Told):
    id: str
    transcript: HybridTranscript
    answers: list[HybridAnswer]


class HybridDelta(_Told):
    index: int
    text: str


class HybridDone(_Told):
    id: str


class Live(_Told):
    live: bool
    reason: str


class Ready(_Told):
    ready: bool
    reason: str


def _text(*media: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string"}} for kind in media}


def _event(of: type[BaseModel], name: str = "") -> dict[str, Any]:
    """One server-sent event, whose data is JSON."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": REF.format(model=of.__name__)},
    }
    kind = {"event": {"const": name}} if name else {}
    return {"type": "object", "properties": {**kind, "data": data}, "required": [*kind, "data"]}


def _stream(*events: dict[str, Any]) -> dict[str, Any]:
    """Events are described one by one, as OpenAPI before 3.2 has no more to say of a stream."""
    return {"text/event-stream": {"schema": {"anyOf": [*events]}}}


CHUNKS = _stream(
    _event(Chunk), _event(Error), {"type": "object", "properties": {"data": {"const": "[DONE]"}}}
)
HYBRID_EVENTS = _stream(
    _event(HybridTranscript, "transcript"),
    _event(HybridDelta, "delta"),
    _event(HybridAnswer, "answer"),
    _event(HybridDone, "done"),
    _event(Error, "error"),
)
TIMING = {
    "Server-Timing": {
        "description": "wait for the model and its work, in ms (W3C Server Timing)",
        "schema": {"type": "string"},
    }
}
#: What a gateway refuses besides.
BEHIND = _refusals(502, 503, 504)
MODELS: Responses = {200: {"model": ModelList}, **_refusals(401, 503)}
TRANSCRIPTION: Responses = {
    200: {
        "model": Transcript | VerboseTranscript,
        "content": _text("text/plain", "application/x-subrip", "text/vtt"),
        "headers": TIMING,
        "description": "in the form that response_format names",
    },
    **_refusals(400, 401, 404, 408, 413, 422, 429, 503, 504),
}
COMPLETION: Responses = {
    200: {
        "model": Completion,
        "content": CHUNKS,
        "headers": TIMING,
        "description": "an answer; with stream, chat.completion.chunk events, an error among them "
        "where one comes late, and [DONE]",
    },
    **_refusals(400, 401, 404, 408, 413, 422, 429, 503, 504),
}
HYBRID: Responses = {
    200: {
        "model": Hybrid,
        "content": HYBRID_EVENTS,
        "description": "a transcript and answers; with stream, the events transcript, delta (more "
        "of an answer), answer, and at the end done or error",
    },
    **_refusals(400, 401, 404, 408, 413, 422, 429, 503, 504),
}
LIVE: Responses = {200: {"model": Live}, 503: {"model": Live}, **_refusals()}
READY: Responses = {200: {"model": Ready}, 503: {"model": Ready}, **_refusals()}
METRICS: Responses = {
    200: {"description": "Prometheus' text format", "content": _text("text/plain")},
    **_refusals(401),
}

# --------------------------------------------------------------------------------- the whole page


#: Models that are referred to here, not by way of FastAPI.
REFERRED = (
    ChatBody,
    TranscriptionForm,
    Error,
    Chunk,
    HybridTranscript,
    HybridDelta,
    HybridAnswer,
    HybridDone,
)


def body_of(media: str, model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {media: {"schema": schema}}}}


def describe(app: FastAPI, *, secured: bool, most_questions: int) -> None:
    """Let the app describe itself; `secured`: a bearer token is asked for; `most_questions`: of one
    hybrid request."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, secured=secured, most_questions=most_questions)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, *, secured: bool, most_questions: int) -> dict[str, Any]:
    page = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = page.setdefault("components", {}).setdefault("schemas", {})
    for model in REFERRED:
        own = model.model_json_schema(ref_template=REF)
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own
    schemas[HybridForm.__name__]["properties"]["question"]["maxItems"] = most_questions
    if secured:
        page["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        for path, operations in page["paths"].items():
            if not path.startswith("/health/"):
                for operation in operations.values():
                    operation["security"] = [{"bearer": []}]
    return page
