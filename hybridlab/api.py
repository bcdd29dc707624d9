"""hybridlab from Python: `plan`, `run`, `load_run` and `transcribe`, which the commands call as
well.

    import hybridlab

    hybridlab.plan("t4", margin_gb=1).pick
    run = hybridlab.run("params/pocket.yaml", only=["02"])
    hybridlab.load_run("outputs/reference/t4-simulated").cases
    hybridlab.transcribe(["mine.wav"], model="base").backends

Nothing here imports torch; models run in processes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab.analysis.plan_report import PlanReport, plan

if TYPE_CHECKING:
    import pandas as pd

    from hybridlab.experiments.run_progress import Progress
    from hybridlab.experiments.transcription import Comparison
    from hybridlab.models.fetch_progress import Listener

__all__ = ["PlanReport", "Run", "load_run", "plan", "run", "transcribe"]


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder: its tables as frames, its manifest, its report and what it recommends."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, parameters and outcome; empty for a notebook that ran by itself."""
        from hybridlab.results.manifest import read_manifest

        return read_manifest(self.folder)

    @property
    def status(self) -> str:
        """`completed`, `failed` (a notebook did), `crashed` (some never ran) or `running`."""
        return str(self.manifest.get("status", "no manifest"))

    @property
    def notebooks(self) -> dict[str, dict[str, Any]]:
        """What became of each notebook: `status`, `reason`, `seconds`."""
        return dict(self.manifest.get("notebooks", {}))

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables, as `docs/columns.md` describes them; seconds and bytes."""
        from hybridlab.results.reader import run_table

        return run_table(self.folder, name)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """A row for each case: one pair, one way of sharing, one workload, one process."""
        return self.table("cases")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row for each request that was served."""
        return self.table("trials")

    @cached_property
    def claims(self) -> pd.DataFrame:
        """A row for each sentence of the source document, judged by this run."""
        return self.table("claims")

    @property
    def report(self) -> Path:
        """The page that `hybridlab report` builds."""
        return self.folder / "index.html"

    @cached_property
    def answer(self) -> str:
        """The first sentence of the report: which Whisper fits beside Voxtral, and with how much
        to spare; '' where no notebook began to measure."""
        from hybridlab.reporting.html import view_model
        from hybridlab.reporting.html.page_one import answer
        from hybridlab.results.reader import holds_run

        return answer(view_model.Run(self.folder)) if holds_run(self.folder) else ""

    def verdict(
        self, *, max_p95_s: float = 0.0, min_margin_gb: float = 0.0, max_wer: float = 1.0
    ) -> dict[str, Any]:
        """What notebook 07 concluded: `answer`, `recommendation`, `options`, `claims`.

        Under requirements (0 s, 0 GB and a word error rate of 1 ask for nothing) the
        recommendation is computed anew from the rows. `RunFolderError` without a verdict.
        """
        from hybridlab.analysis.recommendation import Requirements
        from hybridlab.analysis.verdict import read_verdict
        from hybridlab.errors import ParameterError
        from hybridlab.units import GB

        if not all(0 <= asked < math.inf for asked in (max_p95_s, min_margin_gb, max_wer)):
            raise ParameterError("max_p95_s, min_margin_gb and max_wer must be 0 or more")
        wanted = Requirements.asked(
            min_margin_bytes=min_margin_gb * GB, max_p95_s=max_p95_s, max_wer=max_wer
        )
        return read_verdict(self.folder, None if wanted == Requirements() else wanted)

    def __repr__(self) -> str:
        return (
            f"Run({str(self.folder)!r}: {self.status}, {len(self.cases)} cases, "
            f"{len(self.trials)} requests)"
        )


def run(
    params: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
    listener: Callable[[Progress], None] | None = None,
) -> Run:
    """Run the notebooks of a preset, or of a flat YAML file of parameters, headlessly, as
    `hybridlab run` does.

    `overrides` replace the file's parameters, `only` names notebooks by number or name, `listener`
    is called at every change of progress. A notebook that fails does not
    stop the others: see `Run.notebooks`. `ParameterError` before anything starts,
    `RunFolderError` where `output` holds a run already and `resume` is false.
    """
    from hybridlab.config.preset_files import parameter_file, read_yaml
    from hybridlab.experiments.notebook_runner import run_suite

    path = parameter_file(params)
    folder = run_suite(
        {**read_yaml(path), **(overrides or {})},
        preset=path.stem,
        only=list(only) or None,
        output=None if output is None else Path(output),
        resume=resume,
        listener=listener,
    )
    return Run(folder)


def load_run(folder: str | Path) -> Run:
    """The run in this folder; `RunFolderError` where there is none."""
    found = Run(Path(folder).expanduser().absolute())
    _ = found.cases  # reads it, or says that there is no run
    return found


def transcribe(
    files: Sequence[str | Path],
    *,
    model: str = "base",
    language: str = "",
    weights: str | Path | None = None,
    device: str = "auto",
    listener: Callable[[str], None] = lambda backend: None,
    fetching: Listener | None = None,
) -> Comparison:
    """Your own files through a released Whisper and every backend that is installed, as `hybridlab
    try` does: texts, seconds and memory of each. See `compare_backends` for what it raises."""
    from hybridlab.experiments.transcription import compare_backends

    return compare_backends(
        files,
        model=model,
        language=language,
        weights=weights,
        device=device,
        listener=listener,
        fetching=fetching,
    )
