"""The claims of the original analysis as data: what each says, needs, and is judged by.

`params/claims.yaml` holds them. A rule is one small model per kind of test, told apart by `test`;
what a rule means is in `judges`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hybridlab import catalog
from hybridlab.config.preset_files import PRESETS_DIR
from hybridlab.errors import ParameterError

Kind = Literal["arithmetic", "memory", "fit", "time", "strategy", "soak", "quality"]
CLAIMS_FILE = Path("params") / "claims.yaml"

Share = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Sizes = Annotated[list[str], Field(min_length=2)]
Patterns = Annotated[list[str], Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ----------------------------------------------------------------------------------------- rules


class SumRule(_Model):
    """The terms add up to what is stated."""

    test: Literal["sum"]
    terms: Annotated[list[float], Field(min_length=2)]
    stated: float
    unit: str
    tolerance: float = 0.05


class ShareRule(_Model):
    """A part of a whole is the stated per cent, rounded to a whole one."""

    test: Literal["share"]
    part: float
    whole: Annotated[float, Field(gt=0)]
    stated_percent: float


class DtypeBytesRule(_Model):
    """A test in one dtype says what the weights take in another."""

    test: Literal["dtype-bytes"]
    voxtral: str
    tested_dtype: str
    used_dtype: str


class FootprintRule(_Model):
    """A tenant takes the stated figure, in GB or in GiB since the analysis mixes them."""

    test: Literal["footprint"]
    tenant: Literal["llm", "asr"]
    model: str
    stated: Annotated[float, Field(gt=0)]
    tolerance: Share


class SizeOrderRule(_Model):
    """Sizes from the one that takes most bytes to the one that takes least."""

    test: Literal["size-order"]
    sizes: Sizes


class FitsRule(_Model):
    """A Whisper fits (or not) beside Voxtral on the card that the claim needs."""

    test: Literal["fits"]
    whisper: str
    fits: bool
    stated_total: float | None = None


class LatencyRule(_Model):
    """The stated time for a clip of one window, for a tenant or for the whole request."""

    test: Literal["latency"]
    who: Literal["llm", "asr", "request"]
    stated_s: Annotated[float, Field(gt=0)]
    tolerance: Share


class ExtremeRule(_Model):
    """A strategy is the highest or the lowest of the three in one figure."""

    test: Literal["extreme"]
    strategy: str
    figure: Literal["peak_bytes", "latency"]
    end: Literal["highest", "lowest"]


class ResidencyRule(_Model):
    """A strategy holds only the larger of the two models."""

    test: Literal["residency"]
    strategy: str


class LowestRiskRule(_Model):
    """A strategy never fails and has the lowest peak."""

    test: Literal["safest"]
    strategy: str


class OomRateRule(_Model):
    """A strategy runs out of memory in the largest share of its cases."""

    test: Literal["oom-risk"]
    strategy: str


class NoSlowdownRule(_Model):
    """A request takes at most `limit` times its slower tenant's time."""

    test: Literal["full-speed"]
    strategy: str
    limit: Annotated[float, Field(ge=1)]


class FasterRule(_Model):
    """Arms named by 'strategy/variant' patterns beat others."""

    test: Literal["faster"]
    arms: Patterns
    than: Patterns
    figure: Literal["latency", "throughput"] = "latency"


class GrowthRule(_Model):
    """Reserved but unused bytes grow over the cycles without a remedy."""

    test: Literal["growth"]


class RemedyRule(_Model):
    """A remedy ends that growth."""

    test: Literal["cure"]
    mitigation: str


class QualityRule(_Model):
    """Sizes from the lowest word error rate to the highest."""

    test: Literal["quality"]
    sizes: Sizes


Rule = (
    SumRule
    | ShareRule
    | DtypeBytesRule
    | FootprintRule
    | SizeOrderRule
    | FitsRule
    | LatencyRule
    | ExtremeRule
    | ResidencyRule
    | LowestRiskRule
    | OomRateRule
    | NoSlowdownRule
    | FasterRule
    | GrowthRule
    | RemedyRule
    | QualityRule
)


# ---------------------------------------------------------------------------------------- claims


class Needs(_Model):
    """Where a claim must be measured; nothing set means on any device, with any pair."""

    arithmetic: bool = False
    cuda: bool = False
    card: str | None = None
    full_size: bool = False
    weights: Literal["any", "real"] = "any"

    @field_validator("card")
    @classmethod
    def _known_card(cls, name: str | None) -> str | None:
        if name is not None and name not in catalog.CARDS:
            raise ValueError(str(ParameterError.unknown_name("card", name, catalog.CARDS)))
        return name


class Claim(_Model):
    """A sentence of the original analysis, and how it is judged."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    sentence: Text
    kind: Kind
    expected: Text
    supported_if: Text
    refuted_if: Text
    needs: Needs
    rule: Annotated[Rule, Field(discriminator="test")]


class _ClaimsFile(_Model):
    claims: Annotated[list[Claim], Field(min_length=1)]


def load_claims(path: Path | None = None) -> list[Claim]:
    """Every claim of a file, by default `params/claims.yaml`; `ParameterError` in one line.

    The default file is looked for from this folder upwards; the package's own is the last.
    """
    import yaml

    path = _default_path() if path is None else Path(path).expanduser()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(
            f"claims file {str(path)!r} cannot be read ({error.strerror}); name another one or "
            "leave `claims` empty for the project's own"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path} must hold a list under 'claims:', not a {_type(values)}")
    try:
        claims = _ClaimsFile.model_validate(values).claims
    except ValidationError as error:
        raise ParameterError(f"{path}: {_first_problem(error, values)}") from None
    _check_unique(path, claims)
    return claims


def _default_path() -> Path:
    near = (folder / CLAIMS_FILE for folder in (Path.cwd(), *Path.cwd().parents))
    return next((path for path in near if path.is_file()), PRESETS_DIR / CLAIMS_FILE.name)


def _check_unique(path: Path, claims: list[Claim]) -> None:
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise ParameterError(f"{path}: claim id {claim.id!r} stands twice; rename one of them")
        seen.add(claim.id)


def _first_problem(error: ValidationError, values: dict[str, object]) -> str:
    """The first problem, with the claim's id where it has one."""
    problem = error.errors()[0]
    location = list(problem["loc"])
    claims = values.get("claims")
    if len(location) > 1 and isinstance(location[1], int) and isinstance(claims, list):
        entry = claims[location[1]]
        name = entry.get("id") if isinstance(entry, dict) else None
        location[:2] = [f"claim {name or location[1]}"]
    where = ".".join(str(part) for part in location)
    seen = " ".join(repr(problem["input"]).split())
    shown = seen if len(seen) <= 60 else f"{seen[:57]}..."
    more = len(error.errors()) - 1
    also = f" (and {more} more)" if more else ""
    return " ".join(f"{where} = {shown}: {problem['msg']}{also}".split())


def _type(value: object) -> str:
    return "empty file" if value is None else type(value).__name__
