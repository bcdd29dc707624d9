"""Names of a registry as types of parameters: what is registered is accepted, and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from hybridlab import catalog


@dataclass(frozen=True)
class OneOf:
    """A string that is one of these names now: asked each time, since more may be registered."""

    names: Callable[[], Iterable[str]]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: str) -> str:
        known = list(self.names())
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            good = ", ".join(repr(name) for name in known)
            raise PydanticCustomError("one_of", "{text}", {"text": f"{hint}choose one of {good}"})
        return value


LlmModel = Annotated[str, OneOf(lambda: catalog.VOXTRALS)]
LlmDtype = Annotated[str, OneOf(lambda: ["auto", *catalog.LLM_DTYPES])]
AsrModel = Annotated[str, OneOf(lambda: catalog.WHISPERS)]
AsrDtype = Annotated[str, OneOf(lambda: ["auto", *catalog.asr_dtypes()])]
Backend = Annotated[str, OneOf(lambda: catalog.BACKENDS)]


def _no_yaml_flag(value: Any) -> Any:
    if value is False:
        text = "YAML reads a bare no as false; write norwegian"
        raise PydanticCustomError("language", "{text}", {"text": text})
    return value


#: Any way to write a language becomes Whisper's code; '' and 'auto' become ''.
Language = Annotated[str, BeforeValidator(_no_yaml_flag), AfterValidator(catalog.whisper_language)]


#: Strategies whose plain variant serves one request after the other.
OneAtATime = Annotated[
    str, OneOf(lambda: [n for n, own in catalog.STRATEGIES.items() if not own.plain.streams])
]


def variants(strategy: str) -> OneOf:
    """A variant of this strategy."""
    return OneOf(lambda: catalog.strategy(strategy).variants)


def defaults(strategy: str) -> list[str]:
    """The variants that a notebook measures unless its parameters say otherwise."""
    return [variant.name for variant in catalog.strategy(strategy) if variant.default]
