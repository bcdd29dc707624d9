"""How long a run still takes, from what has ended and from an earlier run of the same preset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from hybridlab.errors import RunFolderError
from hybridlab.results.records import read_manifest

#: A notebook that ended sooner was completed by an earlier try and is not repeated.
LEAST_S = 0.1


@dataclass(kw_only=True)
class Forecast:
    """Told of a run's stages, it says what is left. All times in seconds."""

    notebooks: list[str]
    #: What each notebook took in an earlier run.
    earlier_s: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    took_s: dict[str, float] = field(default_factory=dict)
    #: The notebook that runs now.
    #: The notebook that runs now.
    current: str = ""
    _began: float = 0.0

    def begin(self, notebook: str) -> None:
        """`notebook` runs from now on, and the one before has ended; again for the same one:
        nothing has changed."""
        if notebook == self.current:
            return
        now = self.clock()
        if self.current:
            self.took_s[self.current] = now - self._began
        self.current, self._began = notebook, now

    def left_s(self, cases_done: int, cases_total: int) -> float | None:
        """Seconds until the run's end; None where nothing is known to say so from."""
        now = self._left_of_current(cases_done, cases_total)
        later = [self._expected(name) for name in self._later()]
        if now is None or any(expected is None for expected in later):
            return None
        return now + sum(expected for expected in later if expected is not None)

    def _later(self) -> list[str]:
        if self.current not in self.notebooks:
            return list(self.notebooks)
        return self.notebooks[self.notebooks.index(self.current) + 1 :]

    def _left_of_current(self, done: int, total: int) -> float | None:
        """By the share of its cases once half of them are done; before that by expectation."""
        if not self.current:
            return 0.0
        spent = self.clock() - self._began
        by_cases = spent * (total - done) / done if done else None
        expected = self._expected(self.current)
        if expected is None or (by_cases is not None and 2 * done >= total):
            return by_cases
        return max(0.0, expected - spent)

    def _expected(self, notebook: str) -> float | None:
        """As long as it took before, on a machine as fast as this one shows to be; without an
        earlier run as long as the others take on average."""
        ended = {name: s for name, s in self.took_s.items() if s >= LEAST_S}
        known = [name for name in ended if name in self.earlier_s]
        if notebook in self.earlier_s:
            before = sum(self.earlier_s[name] for name in known)
            speed = sum(ended[name] for name in known) / before if before else 1.0
            return self.earlier_s[notebook] * speed
        return mean(ended.values()) if ended else None


def earlier_seconds(outputs: Path, preset: str) -> dict[str, float]:
    """What each notebook took in the newest completed run of this preset; empty without one."""
    found: dict[str, dict[str, float]] = {}
    for path in outputs.glob("*/manifest.json"):
        try:
            manifest = read_manifest(path.parent)
        except RunFolderError:
            continue  # a damaged manifest says nothing about times
        if manifest.get("preset") == preset and manifest.get("status") == "completed":
            found[manifest["ended"]] = {
                name: outcome["seconds"]
                for name, outcome in manifest["notebooks"].items()
                if outcome["status"] == "completed"
            }
    return found[max(found)] if found else {}
