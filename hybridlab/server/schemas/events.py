"""How streams of server-sent events are declared, and models that no route names as its own."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hybridlab.server.schemas.base import REF, Error
from hybridlab.server.schemas.completions import Chunk
from hybridlab.server.schemas.hybrid import HybridDelta, HybridDone, HybridEvent
from hybridlab.server.schemas.transcripts import (
    TranscriptDelta,
    TranscriptDone,
    VerboseTranscriptDone,
)

#: Models of which FastAPI itself does not know.
REFERRED = (
    Error,
    Chunk,
    HybridDelta,
    HybridDone,
    TranscriptDelta,
    TranscriptDone,
    VerboseTranscriptDone,
)


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


CHUNK_STREAM = _stream(
    _event(Chunk), _event(Error), {"type": "object", "properties": {"data": {"const": "[DONE]"}}}
)
TRANSCRIPT_STREAM = _stream(
    _event(TranscriptDelta), _event(TranscriptDone), _event(VerboseTranscriptDone), _event(Error)
)
HYBRID_STREAM = _stream(
    *(_event(model, model.event_name) for model in get_args(HybridEvent)), _event(Error, "error")
)


def referred_schemas() -> dict[str, Any]:
    """Of `REFERRED` and all that they are made of, by name."""
    _, found = models_json_schema(
        [(model, "serialization") for model in REFERRED], ref_template=REF
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
