"""What a document on sharing a T4 claims, as data: what each says, needs, and is judged by."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from hybridlab.analysis.claims import (  # noqa: F401 - they register their rules
    memory_and_time_rules,
    ranking_rules,
    trend_rules,
)
from hybridlab.analysis.claims.evidence import Needs
from hybridlab.analysis.claims.rules import RULES
from hybridlab.config.notebook_params import first_problem
from hybridlab.config.preset_files import PRESETS_DIR, read_yaml
from hybridlab.errors import ParameterError

Kind = Literal["arithmetic", "memory", "fit", "time", "strategy", "soak", "quality"]
CLAIMS_FILE = Path("params") / "claims.yaml"

Text = Annotated[str, Field(min_length=1)]


class Claim(BaseModel):
    """A statement of the document, and how it is judged: `rule` holds the parameters of the rule
    `rule.test`. `line` is where in the document the quotation stands; a claim of one's own has
    none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    quote: Text
    line: Annotated[int, Field(ge=1)] | None = None
    kind: Kind
    expected: Text
    supported_if: Text
    refuted_if: Text
    needs: Needs
    rule: Any


def _file_model() -> Any:
    """The model of a file whose claims have one of the rules that are registered now."""
    rules: Any = reduce(or_, (rule.parameters for rule in RULES.values()))
    claim: Any = create_model("Claim", __base__=Claim, rule=(rules, Field(discriminator="test")))
    return create_model(
        "ClaimsFile",
        __config__=ConfigDict(extra="forbid"),
        claims=(list[claim], Field(min_length=1)),
    )


def load_claims(path: Path | None = None) -> list[Claim]:
    """Every claim of a file, by default `params/claims.yaml`; `ParameterError` in one line.

    The default file is looked for from this folder upwards; the package's own is the last.
    """
    path = _default_path() if path is None else Path(path).expanduser()
    if not path.is_file():
        raise ParameterError(
            f"claims file {str(path)!r} cannot be read; name another one or leave `claims` empty "
            "for the project's own"
        )
    values = read_yaml(path)
    try:
        claims: list[Claim] = _file_model().model_validate(values).claims
    except ValidationError as error:
        raise ParameterError(f"{path}: {first_problem(error, _location(error, values))}") from None
    name, times = Counter(claim.id for claim in claims).most_common(1)[0]
    if times > 1:
        raise ParameterError(f"{path}: claim id {name!r} stands twice; rename one of them")
    return claims


def _default_path() -> Path:
    near = (folder / CLAIMS_FILE for folder in (Path.cwd(), *Path.cwd().parents))
    return next((path for path in near if path.is_file()), PRESETS_DIR / CLAIMS_FILE.name)


def _location(error: ValidationError, values: dict[str, Any]) -> list[object]:
    """Where the first problem is, with the claim's id where it has one."""
    location: list[object] = list(error.errors()[0]["loc"])
    if len(location) > 1:  # `claims`, and a claim's place in the list
        claim = values["claims"][location[1]]
        name = claim.get("id") if isinstance(claim, dict) else None
        location[:2] = [f"claim {name or location[1]}"]
    return location
