"""`hybridlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridlab.cli.app import app, one_line_errors
from hybridlab.cli.app import short as _short


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Build a run's index.html again from its tables."""
    with one_line_errors():
        from hybridlab.report import build_report

        typer.echo(f"report: {_short(build_report(run_dir.expanduser().absolute()))}")
