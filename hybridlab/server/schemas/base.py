"""What all answers have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

#: Where FastAPI keeps the schema of a model.
REF = "#/components/schemas/{model}"
FinishReason = Literal["stop", "length"]


class Answer(BaseModel):
    """An object that has these fields and no others."""

    model_config = ConfigDict(extra="forbid")


def _absent(value: Any) -> bool:
    return value is None


#: A field that is left out where it is None, rather than null.
OptionalText = Annotated[str | SkipJsonSchema[None], Field(exclude_if=_absent)]
OptionalNumber = Annotated[float | SkipJsonSchema[None], Field(exclude_if=_absent)]


class Served(Answer):
    model: str
    instead_of: OptionalText = Field(
        None, description="the larger model in whose place this one answered"
    )
