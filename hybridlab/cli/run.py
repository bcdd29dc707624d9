"""`hybridlab run`: notebooks headlessly into one run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, cli_errors, print_json
from hybridlab.cli.report import ending, resumed
from hybridlab.errors import ParameterError

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.api import Run
    from hybridlab.experiments.run_progress import Progress


Preset = Annotated[str, typer.Argument(help="a preset, as pocket, or a flat YAML file")]
Only = Annotated[str, typer.Option(help="notebooks by number or name, as 02,06")]
Overrides = Annotated[
    list[str] | None, typer.Option("-p", help="a parameter as name=value, repeatable")
]
#: Exit code of a run that completed, in which other programs have disturbed all of a comparison.
NO_VALID_TIMES = 3


@app.command()
def run(
    params: Preset,
    only: Only = "",
    p: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="the run's folder")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="repeat only what is missing")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the notebooks headlessly into one run folder with a report.

    Exit code 1: a notebook failed; 2: refused; 3: other programs made all times of a comparison
    invalid.
    """
    from hybridlab import api
    from hybridlab.analysis.case_status import none_valid

    last: list[Progress] = []
    with cli_errors(lambda: _after_interrupt(last)):
        from hybridlab.cli.progress import progress

        with progress() as draw:

            def listener(state: Progress) -> None:
                last[:] = [state]
                draw(state)

            done = api.run(
                params,
                overrides=overrides_of(p),
                only=[name.strip() for name in only.split(",") if name.strip()],
                output=output,
                resume=resume,
                listener=listener,
            )
    if as_json:
        print_json(outcome(done))
    else:
        printing.console().print(outcome_table(done.notebooks))
        typer.echo("\n".join(ending(done)))
    if done.status != "completed":
        raise typer.Exit(1)
    if none_valid(done.cases):
        raise typer.Exit(NO_VALID_TIMES)


def _after_interrupt(last: Sequence[Progress]) -> str:
    """What goes on with the run, by the last that was told of it; before it began there is none."""
    folder = last[0].run_dir if last else None
    if folder is not None:
        return f"to go on: {resumed(folder)}"
    return "no run has begun; what has arrived of weights is kept"


def overrides_of(given: Sequence[str] | None) -> dict[str, Any]:
    """The parameters of `-p` options by name."""
    from hybridlab.config.params import parse_override

    overrides: dict[str, Any] = {}
    for item in given or []:
        name, separator, text = item.partition("=")
        if not separator:
            raise ParameterError(f"-p {item!r} has no value; write -p {item} VALUE")
        overrides[name] = parse_override(name, text)
    return overrides


def outcome(run: Run) -> dict[str, Any]:
    """What became of a run: status, each notebook's outcome, invalid cases, the answer, and where
    its files are."""
    from hybridlab.analysis.case_status import invalid_words

    return {
        "run_dir": str(run.folder),
        "status": run.status,
        "preset": run.manifest["preset"],
        "notebooks": run.notebooks,
        "invalid": invalid_words(run.cases) if run.answer else "",
        "answer": run.answer,
        "report": str(run.report) if run.answer else "",
    }


def outcome_table(notebooks: Mapping[str, Mapping[str, Any]]) -> Table:
    """What became of each notebook, in how long, and why."""
    rows = [
        (name, one["status"], f"{one['seconds']:.1f} s", one["reason"])
        for name, one in notebooks.items()
    ]
    return printing.table(("notebook", "status", "took", "reason"), rows, right=("took",))
