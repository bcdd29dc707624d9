"""`hybridlab migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hybridlab.cli.app import app, cli_errors, relative_path


@app.command()
def migrate(run_dir: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Bring an older run's tables to the present names, in place."""
    with cli_errors():
        from hybridlab.analysis.verdict import rewrite_verdict
        from hybridlab.results.migration import migrate as rewrite

        folder = run_dir.expanduser().absolute()
        changed = rewrite(folder)
        verdict = rewrite_verdict(folder) if changed else None
        for path in [*changed, *([verdict] if verdict else [])]:
            typer.echo(f"rewritten: {relative_path(path)}")
        if not changed:
            typer.echo(f"{relative_path(run_dir)} is of the present schema already")
