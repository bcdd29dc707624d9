"""`hybridlab new`: a notebook and a preset of a reader's own."""

from __future__ import annotations

from typing import Annotated

import typer

from hybridlab.cli.app import app, one_line_errors, short


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="as my-experiment")],
    source: Annotated[
        str, typer.Option("--from", help="the notebook to begin from, as 04 or 04_sequential")
    ] = "04_sequential",
) -> None:
    """Write a notebook and a preset of your own from one of the project's."""
    from hybridlab.config.notebooks import notebooks_dir
    from hybridlab.config.scaffold import create

    with one_line_errors():
        notebook, preset = create(notebooks_dir().parent, name, source=source)
    typer.echo(f"notebook: {short(notebook)}")
    typer.echo(f"preset:   {short(preset)}")
    typer.echo(f"run it:   hybridlab run {short(preset)}")
