"""How a notebook's parameters are read: one flat model each, nothing coerced, nothing extra."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hybridlab.config import renamed
from hybridlab.config.preset_files import TO_BE_GIVEN, filled
from hybridlab.errors import ParameterError

#: The parameter of a cell that gives, by name, those that do not stand in it.
OVERRIDES = "overrides"
#: What begins a name's line in a cell, and what marks a cell as one of parameters.
_ASSIGNED = re.compile(r"^(\w+)\s*=(?!=)", re.MULTILINE)
_PARAMETER_CELL = re.compile(r"# @param|\A# Parameters$", re.MULTILINE)


class NotebookParams(BaseModel):
    """Parameters of a notebook; `preset` fills those that are left at their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    notebook: ClassVar[str] = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`, filled from their `preset`; every problem is a one-line
        `ParameterError` naming the fix."""
        for name, value in values.items():
            if name not in cls.model_fields:
                raise unknown_parameter(name, cls.model_fields)
            if (now := renamed.renamed_parameter(name, value)) != value:
                raise ParameterError(f"parameter {name} = {value!r} is now {now!r}; rename it")
        values = filled(values, cls.model_fields)
        for name, value in values.items():
            if value == TO_BE_GIVEN:
                raise ParameterError(
                    f"parameter {name} has to be given: -p {name}=VALUE, or in the notebook's cell"
                )
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError(f"parameter {first_problem(error)}") from None

    @classmethod
    def from_namespace(cls, namespace: Mapping[str, Any]) -> Self:
        """Validate a notebook's globals, and what its `overrides` give beside them.

        papermill only warns of a parameter that the notebook does not declare; here a plain value
        whose name no notebook knows is refused. Names that belong to other notebooks are left
        alone, since one file of parameters may serve all eight. A value that is the parameter's
        default counts as not given: the preset may fill it.
        """
        fields, known = cls.model_fields, cls.names_known()
        for name in _parameter_names(namespace):
            if name not in known and name != OVERRIDES:
                raise unknown_parameter(name, fields)
        given = {}
        for name, value in namespace.items():
            if name in fields:
                default = fields[name].get_default(call_default_factory=True)
                if type(value) is not type(default) or value != default:  # True is not 1
                    given[name] = value
        return cls.from_mapping(given if OVERRIDES in fields else cls._overridden(given, namespace))

    @classmethod
    def names_known(cls) -> set[str]:
        """Names that may stand in the namespace: its own, unless a file serves others as well."""
        return set(cls.model_fields)

    @classmethod
    def _overridden(cls, given: dict[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
        overrides = namespace.get(OVERRIDES, {})
        if not isinstance(overrides, dict):
            raise ParameterError(
                f"parameter {OVERRIDES} = {overrides!r} is no dict; write names and values, as "
                '{"trials": 8}'
            )
        for name in overrides:
            if name in given and given[name] != overrides[name]:
                raise ParameterError(
                    f"parameter {name} is given twice, as {given[name]!r} and in {OVERRIDES} as "
                    f"{overrides[name]!r}; remove one"
                )
        return given | overrides


def _parameter_names(namespace: Mapping[str, Any]) -> Iterable[str]:
    """Names of the namespace that stand for parameters. In a kernel those of cells of parameters
    and of all cells before the first validation: later ones hold results."""
    plain = [name for name, value in namespace.items() if _is_plain(name, value)]
    cells = namespace.get("In")
    if not isinstance(cells, list):
        return plain
    first = next((i for i, cell in enumerate(cells) if "from_namespace(" in cell), len(cells))
    asked = [c for i, c in enumerate(cells) if i < first or _PARAMETER_CELL.search(c)]
    assigned = {name for cell in asked for name in _ASSIGNED.findall(cell)}
    return [name for name in plain if name in assigned]


def _is_plain(name: str, value: Any) -> bool:
    plain = isinstance(value, (int, float, str, list, dict, tuple))
    return plain and not name.startswith("_") and name not in ("In", "Out")


def unknown_parameter(name: str, known: Iterable[str]) -> ParameterError:
    """The name that took this one's place, or a near one, or all of them."""
    if name in renamed.PARAMETERS:
        return ParameterError(f"parameter {name!r} is now {renamed.PARAMETERS[name]!r}; rename it")
    return ParameterError.unknown_name("parameter", name, known)


def first_problem(error: ValidationError, location: Sequence[object] = ()) -> str:
    """The first problem of a validation in one line, with the value seen and what would do;
    `location` is how the reader calls the place."""
    problem, *others = error.errors()
    where = ".".join(map(str, location or problem["loc"]))
    seen = repr(problem["input"])
    shown = seen if len(seen) <= 60 else f"{seen[:57]}..."
    also = f" (and {len(others)} more)" if others else ""
    return " ".join(f"{where} = {shown}: {problem['msg']}{also}".split())
