"""The table of checks, what one returns, and how they are run: none can stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Literal

State = Literal["ok", "limited", "broken"]


@dataclass(frozen=True)
class CheckResult:
    """One thing looked at. Where something is missing, `impact` says what does not work without it
    and `fix` is one command; `fatal` where the demo cannot run then."""

    name: str
    detail: str
    impact: str = ""
    fix: str = ""
    fatal: bool = False

    def __post_init__(self) -> None:
        if bool(self.impact) != bool(self.fix) or (self.fatal and not self.impact):
            raise ValueError(f"{self.name}: an impact and a fix come together")

    @property
    def state(self) -> State:
        if not self.impact:
            return "ok"
        return "broken" if self.fatal else "limited"

    def as_dict(self) -> dict[str, str | bool]:
        return {"state": self.state, **asdict(self)}


Check = Callable[[], CheckResult | Sequence[CheckResult]]


def _lazy(module: str, function: str) -> Check:
    """A check that is imported as it begins: what it imports may be what is missing."""

    def check() -> CheckResult | Sequence[CheckResult]:
        found: Check = getattr(import_module(f"{__package__}.{module}"), function)
        return found()

    return check


CHECKS: Mapping[str, Check] = {
    "machine": _lazy("machine", "system"),
    "packages": _lazy("software", "packages"),
    "host memory": _lazy("machine", "memory"),
    "disk": _lazy("machine", "disk"),
    "GPU": _lazy("machine", "gpu"),
    "faster-whisper": _lazy("software", "faster_whisper"),
    "Jupyter kernel": _lazy("software", "kernel"),
    "notebooks": _lazy("software", "notebooks"),
    "hub": _lazy("weights", "hub"),
    "presets": _lazy("weights", "preset_results"),
}
#: Without which the demo is not known to run.
NEEDED = ("packages", "Jupyter kernel", "notebooks", "presets")


def run_checks(checks: Mapping[str, Check] | None = None) -> Iterator[CheckResult]:
    """Every result as it comes. A check that fails is a result with the fault in it."""
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            found = check()
        except Exception as error:  # whatever is missing, the other checks still run
            yield CheckResult(
                name,
                f"could not be checked: {type(error).__name__}: {error}",
                impact="something that it needs is missing or damaged",
                fix="pip install --editable .",
                fatal=name in NEEDED,
            )
        else:
            yield from [found] if isinstance(found, CheckResult) else found


def demo_runs(results: Sequence[CheckResult]) -> bool:
    """Whether nothing is missing that the demo cannot do without."""
    return all(result.state != "broken" for result in results)
