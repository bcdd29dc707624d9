"""`hybridlab run`: notebooks headlessly into one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, cli_errors, print_json, relative_path
from hybridlab.errors import ParameterError

if TYPE_CHECKING:
    from rich.table import Table


@app.command()
def run(
    params: Annotated[Path, typer.Argument(help="a flat YAML file, as in params/")],
    only: Annotated[str, typer.Option(help="notebooks by number or name, as 02,06")] = "",
    p: Annotated[
        list[str] | None, typer.Option("-p", help="a parameter as name=value, repeatable")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="the run's folder")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="repeat only what is missing")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the notebooks headlessly into one run folder with a report."""
    from hybridlab.config.params import parse_override
    from hybridlab.config.preset_files import read_yaml

    with cli_errors():
        values = read_yaml(params)
        for item in p or []:
            name, separator, text = item.partition("=")
            if not separator:
                raise ParameterError(f"-p {item!r} has no value; write -p {item} VALUE")
            values[name] = parse_override(name, text)
        from hybridlab.cli.progress import progress
        from hybridlab.experiments.notebook_runner import run_suite, succeeded

        with progress() as listener:
            run_dir = run_suite(
                values,
                preset=params.stem,
                only=[name.strip() for name in only.split(",") if name.strip()] or None,
                output=output,
                resume=resume,
                listener=listener,
            )
    found = outcome(run_dir)
    if as_json:
        print_json(found)
    else:
        printing.console().print(outcome_table(found["notebooks"]))
        typer.echo(f"report: {relative_path(Path(found['report']))}")
    if not succeeded(run_dir):
        raise typer.Exit(1)


def outcome(run_dir: Path) -> dict[str, Any]:
    """What became of a run: status, each notebook's outcome, and where its files are."""
    from hybridlab.results.manifest import read_manifest

    manifest = read_manifest(run_dir)
    return {
        "run_dir": str(run_dir),
        "status": manifest["status"],
        "preset": manifest["preset"],
        "notebooks": manifest["notebooks"],
        "report": str(run_dir / "index.html"),
    }


def outcome_table(notebooks: Mapping[str, Mapping[str, Any]]) -> Table:
    """What became of each notebook, in how long, and why."""
    from hybridlab.units import format_seconds

    rows = [
        (name, one["status"], format_seconds(one["seconds"]), one["reason"])
        for name, one in notebooks.items()
    ]
    return printing.table(("notebook", "status", "took", "reason"), rows, right=("took",))
