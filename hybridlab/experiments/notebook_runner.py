"""A batch of notebooks, run headlessly by papermill into one run folder.

Each notebook is a part of the run with a manifest of its own; an interrupted run is one whose
parts lack theirs, and `resume` repeats only those.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridlab.catalog.device_names import simulated_card
from hybridlab.config.notebook_registry import notebooks_dir, own_notebooks
from hybridlab.config.params import NOTEBOOKS, Params, parameters_of, split
from hybridlab.config.preset_files import NONE
from hybridlab.devices import Device, resolve_device
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.experiments.run_progress import Progress, weights_of
from hybridlab.experiments.run_weights import keep, provide
from hybridlab.models.pair import pair_of, specs_of
from hybridlab.processes.fork_server import CaseServer
from hybridlab.processes.imports import without_iri_parsers
from hybridlab.results.manifest import (
    Status,
    now,
    params_hash,
    read_manifest,
    run_manifest,
    write_json,
)
from hybridlab.results.reader import read_rows, write_parquet
from hybridlab.results.run_folder import check_space, new_run_folder

log = logging.getLogger("hybridlab.run")

#: Seconds that a cell may stay silent: longer than any case's own timeout.
CELL_TIMEOUT_S = 6 * 3600
VERDICT = "07_verdict"


def run_suite(
    values: Mapping[str, Any],
    *,
    preset: str,
    only: list[str] | None = None,
    output: Path | None = None,
    resume: bool = False,
    listener: Callable[[Progress], None] | None = None,
) -> Path:
    """Run notebooks with these parameters; the folder of the run is returned.

    Everything is validated before the first notebook starts. An existing folder is refused unless
    `resume`, which then repeats only what is missing. A preset that is called as one of the
    reader's own notebooks runs that one. A notebook that fails does not stop the
    others: its manifest says what happened.
    """
    models = chosen(only, preset)
    names = [model.notebook for model in models]
    run_dir = _run_folder(output, preset, values, resume=resume)
    given = {"preset": NONE, **values, "output_dir": str(run_dir), "headless": True}
    resolved = split(given, models)
    progress = Progress(names)
    if listener is not None:
        progress.listener = listener
    device = _preflight(next(iter(resolved.values())))
    for words in {own.pocket_words for own in resolved.values()} - {""}:
        log.warning("note: %s", words)
    check_space(run_dir)
    specs = [spec for params in resolved.values() for spec in specs_of(params)]
    weights = provide(specs, run_dir, listener=lambda state: progress.tell(fetching=state))
    run_dir.mkdir(parents=True, exist_ok=True)
    keep(weights, run_dir)  # what its notebooks measure
    run = _Run(run_dir=run_dir, preset=preset, values=values, names=names, device=device)
    run.save("running")
    counts, like = weights_of(names, preset, kept=run.kept())
    progress.tell(fetching=None, run_dir=run_dir, weights=counts, like=like)
    card = simulated_card(device.name)
    with CaseServer(card.name if card else ""):  # one for all notebooks: imports are paid for once
        try:
            for name in names:
                progress.tell(current=name, cases_done=0, cases_total=0)
                run.execute(resolved[name], progress)
                progress.tell(finished=progress.finished + 1, cases_done=0, cases_total=0)
        finally:
            run.finish()
    return run_dir


def chosen(only: list[str] | None, preset: str) -> list[type[Params]]:
    """Parameters of the notebooks to run, by number or name; without any, those of the preset's
    own notebook, else of the project's."""
    own = own_notebooks(notebooks_dir())
    default = [preset] if preset in own else list(NOTEBOOKS)
    return [parameters_of(name, {**NOTEBOOKS, **own}) for name in only or default]


@dataclass(kw_only=True)
class _Run:
    """A run at work: what was asked, and what became of each notebook so far."""

    run_dir: Path
    preset: str
    values: Mapping[str, Any]
    names: list[str]
    device: Device
    started: str = field(default_factory=now)
    outcomes: dict[str, Any] = field(default_factory=dict)
    repeated: bool = False

    def __post_init__(self) -> None:
        # outcomes of an earlier, interrupted try; unfinished parts go on from their finished cases
        self.outcomes = dict(read_manifest(self.run_dir).get("notebooks", {}))

    def execute(self, params: Params, progress: Progress) -> None:
        """Run one notebook unless an earlier try has completed it; where other programs disturbed
        that, its invalid cases are repeated. The verdict reads the others' rows, so it is drawn
        again when one of them was repeated."""
        name = params.notebook
        part = self.run_dir / "parts" / name
        done = self.outcomes.get(name, {}).get("status") == "completed"
        if done and name == VERDICT and self.repeated:
            shutil.rmtree(part)
        elif _disturbed(part):  # a part without a manifest is gone on with
            (part / "manifest.json").unlink(missing_ok=True)
        elif done:
            return
        self.outcomes.pop(name, None)
        self.repeated = True
        self.outcomes[name] = _run_notebook(params, self.run_dir, progress)
        self.save("running")

    def kept(self) -> set[str]:
        """The notebooks of an earlier try that need not be repeated."""
        return {
            name
            for name, outcome in self.outcomes.items()
            if outcome["status"] == "completed" and not _disturbed(self.run_dir / "parts" / name)
        }

    def finish(self) -> None:
        """Tables, report and manifest; also after an interrupt, so that it can be reported."""
        status = self._status()
        self.save(status)
        if (self.run_dir / "parts").is_dir():
            from hybridlab.reporting.html import build_report

            write_parquet(self.run_dir)
            build_report(self.run_dir)
            self.save(status)

    def _status(self) -> Status:
        statuses = [self.outcomes.get(name, {}).get("status", "missing") for name in self.names]
        if all(status in ("completed", "skipped") for status in statuses):
            return "completed"
        return "crashed" if "missing" in statuses else "failed"

    def save(self, status: Status) -> None:
        """Write the run's manifest; hashes of what it produced once it has ended."""
        artefacts = [
            path
            for path in sorted(self.run_dir.rglob("*"))
            if status != "running" and path.suffix in (".parquet", ".html", ".ipynb", ".png")
        ]
        manifest = run_manifest(
            params=self.values,
            started=self.started,
            status=status,
            artefacts=artefacts,
            base=self.run_dir,
        )
        if not self.device.is_host:
            manifest["machine"]["gpu"] = self.device.title()
        write_json(
            self.run_dir / "manifest.json",
            {**manifest, "preset": self.preset, "notebooks": self.outcomes},
        )


def _disturbed(part: Path) -> bool:
    """Whether a case of this part is invalid."""
    last = {row["case_id"]: row["status"] for row in read_rows(part / "cases.jsonl")}
    return "invalid" in last.values()


def _run_folder(
    output: Path | None, preset: str, values: Mapping[str, Any], *, resume: bool
) -> Path:
    if output is None:
        if resume:
            raise ParameterError("--resume needs --output DIR, the folder of the interrupted run")
        output = new_run_folder(preset)
    run_dir = output.expanduser().absolute()
    if not resume and _is_taken(run_dir):
        raise RunFolderError(
            f"{run_dir} exists already and is never overwritten; choose another --output, or add "
            "--resume to finish the run in it"
        )
    if resume:
        manifest = read_manifest(run_dir)
        if not manifest:
            raise RunFolderError(f"{run_dir} does not hold a run to resume")
        if manifest.get("params_hash") != params_hash(values):
            raise ParameterError(
                f"the run in {run_dir} was made with other parameters; resume it with the same "
                "file and -p options, or choose another --output"
            )
    return run_dir


def _is_taken(folder: Path) -> bool:
    """Whether it holds anything but runs on simulated cards, which stand in this one's report."""
    inner = folder.iterdir() if folder.exists() else ()
    devices = (read_manifest(path).get("params", {}).get("device", "") for path in inner)
    return not all(simulated_card(device) for device in devices)


def _preflight(params: Params) -> Device:
    """Device, audio, backends and folders of weights, checked once before anything is fetched, any
    kernel starts, or a folder is made."""
    from hybridlab.audio import load_clips

    device = resolve_device(params.device)
    if simulated_card(device.name) is not None:
        from hybridlab.simulation.cuda_torch import cuda_torch
        from hybridlab.simulation.environment import built_libraries

        built_libraries(cuda_torch())
    for line in load_clips(params.audio).left_out_lines():
        log.warning("audio left out: %s", line)
    pair_of(params, device).check()
    return device


# --------------------------------------------------------------------------------- one notebook


def _run_notebook(params: Params, run_dir: Path, progress: Progress) -> dict[str, Any]:
    """Execute one notebook and export it; what happened is returned, never raised."""
    with without_iri_parsers():
        import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source = notebooks_dir() / f"{params.notebook}.ipynb"
    target = run_dir / "notebooks" / source.name
    target.parent.mkdir(exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    begun = time.perf_counter()
    error = ""
    try:
        with _watching(run_dir / "parts" / params.notebook, progress):
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=_given(params),
                kernel_name="python3",
                progress_bar=False,
                execution_timeout=CELL_TIMEOUT_S,
                cwd=str(Path.cwd()),
                extra_arguments=["--IPKernelApp.log_level=40"],  # no advice about transports
            )
    except PapermillExecutionError as failed:
        error = f"{failed.ename}: {' '.join(str(failed.evalue).split())}"
    except DeadKernelError:
        error = "the notebook's kernel died"
    seconds = time.perf_counter() - begun
    part = read_manifest(run_dir / "parts" / params.notebook)
    status, reason = part.get("status", "crashed"), part.get("reason", "")
    if error:
        status, reason = "failed", error
    elif status == "running":  # papermill calls cells completed even if the kernel died
        status, reason = "crashed", "it ended before its last cell"
    export_html(target)
    return {"status": status, "reason": reason, "seconds": seconds}


def _given(params: Params) -> dict[str, Any]:
    """Only what differs from the notebook's own defaults, so that its parameter cell stays short;
    the run folder and `headless` always do. A preset is filled in already."""
    defaults = type(params)()
    given = {
        name: value
        for name, value in params.model_dump().items()
        if value != getattr(defaults, name) or name in ("output_dir", "headless")
    }
    return {**given, "preset": NONE}


@contextmanager
def _watching(part: Path, progress: Progress) -> Iterator[None]:
    """Follow the notebook's cases through the file that its runner keeps."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            path = part / "progress.json"
            if path.is_file():
                state = json.loads(path.read_text(encoding="utf-8"))
                progress.tell(cases_done=state["done"], cases_total=state["total"])

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def export_html(notebook: Path) -> None:
    """Write the executed notebook as a page without code beside it, if there is one."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    if not notebook.is_file():
        return
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = ("bootstrap", "interactive", "hide")
    config.TagRemovePreprocessor.remove_all_outputs_tags = ("silent",)
    config.HTMLExporter.preprocessors = ["nbconvert.preprocessors.TagRemovePreprocessor"]
    exporter = HTMLExporter(config=config, exclude_input=True, exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    exporter.mathjax_url = exporter.require_js_url = ""
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "markdown":  # the page opens offline: no badge from another host
            cell.source = re.sub(r"\[!\[[^\]]*\]\(https?:[^)]*\)\]\([^)]*\)\s*", "", cell.source)
    body, _ = exporter.from_notebook_node(book)
    notebook.with_suffix(".html").write_text(body, encoding="utf-8")
