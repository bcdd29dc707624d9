"""`hybridlab new`: a notebook and a preset of a reader's own."""

from __future__ import annotations

from typing import Annotated

import typer

from hybridlab.cli.app import app, cli_errors, relative_path


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="as my-experiment")],
    source: Annotated[
        str, typer.Option("--from", help="the notebook to begin from, as 04 or 04_sequential")
    ] = "04_sequential",
) -> None:
    """Write a notebook and a preset of your own."""
    from hybridlab.config.new_notebook import create
    from hybridlab.config.notebook_registry import notebooks_dir

    with cli_errors():
        notebook, preset = create(notebooks_dir().parent, name, source=source)
    typer.echo(f"notebook: {relative_path(notebook)}")
    typer.echo(f"preset:   {relative_path(preset)}")
    typer.echo(f"run it:   hybridlab run {relative_path(preset)}")
