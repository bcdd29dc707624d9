"""`hybridlab run`: notebooks headlessly into one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hybridlab.cli.app import AsJson, app, one_line_errors, print_json, short
from hybridlab.errors import ParameterError


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
    from hybridlab.config.defaults import read_yaml
    from hybridlab.config.params import parse_override

    with one_line_errors():
        values = read_yaml(params)
        for item in p or []:
            name, separator, text = item.partition("=")
            if not separator:
                raise ParameterError(f"-p {item!r} has no value; write -p {item} VALUE")
            values[name] = parse_override(name, text)
        from hybridlab.cli.progress import progress
        from hybridlab.experiments.forecast import earlier_seconds
        from hybridlab.experiments.suite import run_suite, succeeded
        from hybridlab.results.records import default_outputs

        with progress(earlier_seconds(default_outputs(), params.stem)) as listener:
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
        for line in outcome_lines(found):
            typer.echo(line)
    if not succeeded(run_dir):
        raise typer.Exit(1)


def outcome(run_dir: Path) -> dict[str, Any]:
    """What became of a run: status, each notebook's outcome, and where its files are."""
    from hybridlab.results.records import read_manifest

    manifest = read_manifest(run_dir)
    return {
        "run_dir": str(run_dir),
        "status": manifest["status"],
        "preset": manifest["preset"],
        "notebooks": manifest["notebooks"],
        "report": str(run_dir / "index.html"),
    }


def outcome_lines(found: dict[str, Any]) -> list[str]:
    """One line for each notebook: what became of it, in how many seconds; then the report."""
    from hybridlab.units import format_seconds

    lines = [
        f"{name:28} {one['status']:10} {format_seconds(one['seconds']):>12}  "
        f"{one['reason']}".rstrip()
        for name, one in found["notebooks"].items()
    ]
    return [*lines, f"report: {short(Path(found['report']))}"]
