"""`hybridlab migrate`."""

from __future__ import annotations

import typer

from hybridlab.cli.app import RunDir, app, cli_errors, relative_path


@app.command()
def migrate(run_dir: RunDir) -> None:
    """Bring an older run's tables to the present names of columns, in place."""
    with cli_errors():
        from hybridlab.results.migration import migrate as rewrite

        changed = rewrite(run_dir.expanduser().absolute())
        for path in changed:
            typer.echo(f"rewritten: {relative_path(path)}")
        if not changed:
            typer.echo(f"{relative_path(run_dir)} is of the present schema already")
