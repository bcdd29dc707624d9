"""Where a run of notebooks stands, and which share of it is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from hybridlab.models.fetch_progress import FetchProgress
from hybridlab.results.reader import read_object
from hybridlab.results.run_folder import default_outputs


@dataclass
class Progress:
    """Where a run stands; `listener` is called after every change."""

    notebooks: list[str]
    current: str = ""
    finished: int = 0
    cases_done: int = 0
    cases_total: int = 0
    #: As long as weights are fetched, before the first notebook.
    fetching: FetchProgress | None = None
    #: Of the run, once it has begun.
    run_dir: Path | None = None
    #: What each notebook counts for; all alike where that is not known.
    weights: Mapping[str, float] = field(default_factory=dict)
    #: The run by whose seconds they count; '' where there is none.
    like: str = ""
    listener: Callable[[Progress], None] = field(default=lambda progress: None)

    def tell(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        self.listener(self)

    @property
    def share(self) -> float:
        """The share of what there is to do that is done."""
        counts = [self.weights.get(name, 1.0) for name in self.notebooks]
        if self.finished == len(counts):
            return 1.0 if counts else 0.0
        total = sum(counts)
        within = min(self.cases_done / self.cases_total, 0.99) if self.cases_total else 0.0
        done = sum(counts[: self.finished]) + within * counts[self.finished]
        return done / total if total else 0.0


def weights_of(
    notebooks: Sequence[str], preset: str, *, kept: Collection[str]
) -> tuple[dict[str, float], str]:
    """What each notebook counts for in a run of this preset, and the run that says so: the seconds
    that it took there; nothing for one that is `kept`, the mean of the others for one that did not
    run. Without such a run all count alike ('')."""
    like, seconds = _last_seconds(notebooks, preset)
    usual = fmean(seconds.values()) if seconds else 1.0
    return {name: 0.0 if name in kept else seconds.get(name, usual) for name in notebooks}, like


def _no_matter(_: str) -> None:
    """A damaged manifest of another run is that run's affair."""


def _last_seconds(notebooks: Sequence[str], preset: str) -> tuple[str, dict[str, float]]:
    """Seconds of each of these notebooks in the newest run of this preset that completed some."""
    outputs = default_outputs()
    found: list[tuple[str, str, dict[str, float]]] = []
    for path in (*outputs.glob("*/manifest.json"), *outputs.glob("*/*/manifest.json")):
        manifest = read_object(path, note=_no_matter)
        outcomes, ended = manifest.get("notebooks"), manifest.get("ended")
        if manifest.get("preset") != preset or not isinstance(outcomes, dict) or not ended:
            continue
        seconds = {
            name: float(outcomes[name]["seconds"])
            for name in notebooks
            if outcomes.get(name, {}).get("status") == "completed"
        }
        if seconds:
            found.append((str(ended), path.parent.name, seconds))
    return max(found, key=lambda one: one[:2])[1:] if found else ("", {})
