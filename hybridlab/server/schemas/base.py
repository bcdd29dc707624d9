"""What all answers have in common, errors among them, and how the routes declare those."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

#: Where FastAPI keeps the schema of a model.
REF = "#/components/schemas/{model}"
#: Of an answer; a transcript may also have ended early.
AnswerFinish = Literal["stop", "length"]
Responses = dict[int | str, dict[str, Any]]


class Answer(BaseModel):
    """An object that has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


def absent(value: Any) -> bool:
    return value is None


#: A field that is left out where it is None, rather than null.
OptionalText = Annotated[str | SkipJsonSchema[None], Field(exclude_if=absent)]
OptionalNumber = Annotated[float | SkipJsonSchema[None], Field(exclude_if=absent)]


class Served(Answer):
    model: str
    instead_of: OptionalText = Field(
        None, description="the larger model in whose place this one answered"
    )


# ------------------------------------------------------------------------------------------- errors


class ErrorDetail(Answer):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str
    longest_audio_s: OptionalNumber = Field(
        None, description="of audio_too_long, and of out_of_memory beside another program"
    )
    largest_upload_bytes: OptionalNumber = Field(None, description="of upload_too_large")


class Error(Answer):
    error: ErrorDetail


RETRY_AFTER = {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}
CHALLENGE = {"schema": {"type": "string", "const": "Bearer"}, "required": True}
WHY = {
    400: "the request makes no sense, or its audio cannot be decoded",
    401: "the bearer token is missing or wrong",
    404: "the model is not served",
    408: "the upload did not end in time",
    413: "the upload or its audio is larger or longer than what is served",
    421: "the server listens on loopback and was called by another name",
    422: "the LLM wrote no answer about this audio",
    429: "too many requests wait already",
    500: "a fault of the server, whose log says why",
    502: "another server that has the model made no sense",
    503: "it cannot be answered now (loading, stopping, out of memory, a worker lost)",
    504: "no answer in time",
}


def error_responses(*statuses: int) -> Responses:
    """These and those that any route may answer with. JSON whatever else a route answers with,
    which FastAPI's own `model` would not be."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=Error.__name__)}}}
    found: Responses = {
        status: {"content": content, "description": WHY[status]} for status in (421, 500, *statuses)
    }
    for status in {429, 503} & set(found):
        found[status]["headers"] = {"Retry-After": RETRY_AFTER}
    if 401 in found:
        found[401]["headers"] = {"WWW-Authenticate": CHALLENGE}
    return found


#: Of a route that calls a model.
SPEECH_ERRORS = error_responses(400, 401, 404, 408, 413, 429, 502, 503, 504)
#: Of one that asks the LLM a question.
INFERENCE_ERRORS = SPEECH_ERRORS | error_responses(422)
