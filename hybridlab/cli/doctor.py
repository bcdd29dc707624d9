"""`hybridlab doctor`: what this machine can and cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.cli.doctor_checks import Finding

#: Colours of the states; the word alone is enough.
STATES = {"ok": "green", "lacks": "yellow", "broken": "bold red"}


@app.command()
def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="ask the hub whether it answers")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine can and cannot do, and what mends each lack."""
    from hybridlab.cli.doctor_checks import CHECKS, demo_runs, examine
    from hybridlab.cli.doctor_checks.checks import ONLINE

    with _working():
        findings = list(examine({**CHECKS, **(ONLINE if online else {})}))
    runs = demo_runs(findings)
    if as_json:
        print_json({"demo": runs, "findings": [finding.as_dict() for finding in findings]})
    elif printing.on_terminal():
        console = printing.console()
        console.print(doctor_view(findings))
        console.print(printing.styled(verdict_words(findings), "bold"))
    else:
        rows = [row for finding in findings for row in finding_rows(finding)]
        printing.print_table(("state", "what", "found"), rows, left=3)
        printing.print_paragraph(verdict_words(findings))
    if not runs:
        raise typer.Exit(1)


@contextmanager
def _working() -> Iterator[None]:
    """A note on stderr while torch is imported, where somebody watches."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status("looking at this machine; importing torch takes some seconds"):
        yield


def finding_rows(finding: Finding) -> list[printing.Row]:
    """One row for what is there, two more for a lack."""
    rows: list[printing.Row] = [(finding.state, finding.about, finding.says)]
    if finding.state != "ok":
        rows += [("", "", finding.means), ("", "", f"$ {finding.mend}")]
    return rows


def doctor_view(findings: list[Finding]) -> Table:
    """The same rows in colour."""
    table = printing.rich_table(("state", "what", "found"))
    for finding in findings:
        (state, about, says), *more = finding_rows(finding)
        table.add_row(printing.styled(state, STATES[state]), about, says)
        for _, _, text in more:
            style = "bold" if text.startswith("$ ") else "dim"
            table.add_row("", "", printing.styled(text, style))
    return table


def verdict_words(findings: list[Finding]) -> str:
    """The whole in a sentence."""
    counts = {state: sum(f.state == state for f in findings) for state in STATES}
    if counts["broken"]:
        return f"The demo cannot run here: {counts['broken']} of {len(findings)} findings stop it."
    if counts["lacks"]:
        return f"The demo runs here; {counts['lacks']} of {len(findings)} findings limit the rest."
    return "The demo runs here, and nothing is missing."
