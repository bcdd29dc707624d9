"""`hybridlab doctor`: what this machine can and cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.cli.doctor_checks import CheckResult

STATE_STYLES = {"ok": "green", "limited": "yellow", "broken": "bold red"}


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can and cannot do, and one command for what is missing."""
    from hybridlab.cli.doctor_checks import demo_runs, run_checks

    watched = printing.console(stderr=True)
    status = "looking at this machine; importing torch takes some seconds"
    with watched.status(status) if watched.is_terminal else nullcontext():
        results = list(run_checks())
    runs = demo_runs(results)
    if as_json:
        print_json({"demo": runs, "checks": [result.as_dict() for result in results]})
    else:
        console = printing.console()
        console.print(result_table(results))
        console.print(printing.styled(summary(results), "bold"))
    if not runs:
        raise typer.Exit(1)


def result_table(results: Sequence[CheckResult]) -> Table:
    """A row for each result; impact and fix in rows of their own below it."""
    table = printing.table(("state", "what", "found"))
    for result in results:
        state = printing.styled(result.state, STATE_STYLES[result.state])
        table.add_row(state, result.name, result.detail)
        if result.impact:
            table.add_row("", "", printing.styled(result.impact, "dim"))
            table.add_row("", "", printing.styled(f"$ {result.fix}", "bold"))
    return table


def summary(results: Sequence[CheckResult]) -> str:
    """All results in a sentence."""
    states = [result.state for result in results]
    if "broken" in states:
        return f"The demo cannot run here: {states.count('broken')} of {len(states)} checks failed."
    if "limited" in states:
        limited = states.count("limited")
        return f"The demo runs here; {limited} of {len(states)} checks found something missing."
    return "The demo runs here, and nothing is missing."
