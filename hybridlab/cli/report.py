"""`hybridlab report`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab.cli.app import app, cli_errors, relative_path, run_folder
from hybridlab.errors import ParameterError

if TYPE_CHECKING:
    from hybridlab.api import Run


@app.command()
def report(
    run_dirs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="a run folder, or several to compare", show_default="the newest in outputs/"
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="the page of a comparison (comparison.html)")
    ] = None,
) -> None:
    """Build a run's page from its tables, or one that compares runs."""
    with cli_errors():
        from hybridlab import api
        from hybridlab.reporting.html import build_comparison, build_report

        folders = [run_folder(folder) for folder in run_dirs] if run_dirs else [run_folder()]
        many = len(folders) > 1
        if output and not many:
            raise ParameterError("--output is for comparisons; a run's page is RUN/index.html")
        target = (output or Path("comparison.html")).expanduser()
        if many:
            typer.echo(f"comparison: {relative_path(build_comparison(folders, target))}")
        else:
            build_report(folders[0])
            typer.echo("\n".join(ending(api.Run(folders[0]))))


def ending(run: Run) -> Iterator[str]:
    """The last lines of a run: its answer, its report, and what of it is invalid."""
    from hybridlab.analysis.case_status import REMEDY, invalid_words

    if not run.answer:
        yield f"no report: no notebook in {relative_path(run.folder)} began to measure"
        return
    yield f"answer: {run.answer}"
    yield f"report: {relative_path(run.report)}"
    if words := invalid_words(run.cases):
        yield f"{words}; {REMEDY}: {resumed(run.folder)}"


def resumed(folder: Path) -> str:
    """What goes on with a run."""
    options = f"--output {shlex.quote(relative_path(folder))} --resume"
    return f"the same line of hybridlab run with {options}"
