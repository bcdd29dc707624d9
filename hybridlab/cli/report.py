"""`hybridlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridlab.cli.app import app, cli_errors, relative_path, run_folder
from hybridlab.errors import ParameterError


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
    """Build a run's index.html again from its tables, or one page that compares runs."""
    with cli_errors():
        from hybridlab.reporting.html import build_comparison, build_report

        folders = [run_folder(folder) for folder in run_dirs] if run_dirs else [run_folder()]
        many = len(folders) > 1
        if output and not many:
            raise ParameterError("--output is for comparisons; a run's page is RUN/index.html")
        target = (output or Path("comparison.html")).expanduser()
        page = build_comparison(folders, target) if many else build_report(folders[0])
        typer.echo(f"{'comparison' if many else 'report'}: {relative_path(page)}")
