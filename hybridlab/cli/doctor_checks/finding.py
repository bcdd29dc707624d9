"""What a check returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

#: `lacks`: something is left out or skipped for want of it; `broken`: the demo cannot run.
State = Literal["ok", "lacks", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at. A lack says what it means and the one command that mends it."""

    about: str
    state: State = "ok"
    says: str
    means: str = ""
    mend: str = ""

    def __post_init__(self) -> None:
        if self.state != "ok" and not (self.means and self.mend):
            raise ValueError(f"{self.about}: a lack must say what it means and what mends it")

    def as_dict(self) -> dict[str, str]:
        return asdict(self)
