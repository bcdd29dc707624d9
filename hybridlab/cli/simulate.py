"""`hybridlab simulate`: any command on a simulated card."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hybridlab.cli.app import app, cli_errors
from hybridlab.errors import ParameterError

#: What follows the command's name is the command's, its options too.
_PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_ON)
def simulate(
    command: Annotated[
        list[str] | None, typer.Argument(help="a command to run there, with its own options")
    ] = None,
    card: Annotated[
        list[str] | None, typer.Option(help="a card, as t4 or l4; repeatable [default: t4]")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="only fetch and build what it needs")
    ] = False,
) -> None:
    """Run a command with CUDA's torch on a simulated card."""
    from hybridlab.simulation.cuda_torch import cuda_torch
    from hybridlab.simulation.environment import environment

    if not (command or fetch):
        raise typer.BadParameter("name a command to run, or --fetch")
    with cli_errors(), tempfile.TemporaryDirectory(prefix="hybridlab-card-") as folder:
        variables = environment(card or ["t4"], Path(folder))
        if fetch or command is None:
            typer.echo(f"ready: simulated cards on CUDA's torch in {cuda_torch().path}")
            return
        given = {**os.environ, **variables}
        try:
            code = subprocess.run(command, env=given, check=False).returncode
        except OSError as error:
            raise ParameterError(f"{command[0]!r} cannot be run: {error.strerror}") from None
    raise typer.Exit(code)
