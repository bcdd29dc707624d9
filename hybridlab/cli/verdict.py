"""`hybridlab verdict`: what a run recommends, and what became of every claim."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, RunDir, app, one_line_errors, print_json
from hybridlab.errors import ParameterError

if TYPE_CHECKING:
    from rich.table import Table

#: Colours of the verdicts; the word alone is enough.
VERDICTS = {
    "supported": "green",
    "refuted": "red",
    "inconclusive": "yellow",
    "not testable here": "dim",
}


@app.command()
def verdict(
    run_dir: RunDir,
    max_p95_s: Annotated[float, typer.Option(help="most seconds for 95 % of requests")] = 0.0,
    min_margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    max_wer: Annotated[float, typer.Option(help="most words wrong, 0.05 is 5 %")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say which way of sharing a run recommends, and what became of every claim."""
    from hybridlab.analysis.verdict import Constraints, read_verdict
    from hybridlab.results.records import plain
    from hybridlab.units import GB

    with one_line_errors():
        if min(max_p95_s, min_margin_gb, max_wer) < 0:
            raise ParameterError("max-p95-s, min-margin-gb and max-wer must not be below zero")
        constraints = Constraints(
            min_margin_bytes=int(min_margin_gb * GB),
            max_p95_s=max_p95_s or math.inf,
            max_wer=max_wer if max_wer < 1 else math.inf,
        )
        asked = constraints != Constraints()
        found = read_verdict(run_dir.expanduser().absolute(), constraints if asked else None)
    if as_json:
        print_json(plain(found))
    elif printing.on_terminal():
        _print_rich(found)
    else:
        _print_plain(found)


def _print_plain(found: dict[str, Any]) -> None:
    printing.print_paragraph(found["answer"])
    if found["recommendation"] is not None:
        typer.echo("")
        printing.print_table(("goal", "way", "figure"), goal_rows(found["recommendation"]), left=3)
        typer.echo("")
        for sentence in _reasons(found["recommendation"]):
            printing.print_paragraph(sentence)
    typer.echo("")
    printing.print_table(("verdict", "claim"), _claims(found), left=2)


def _print_rich(found: dict[str, Any]) -> None:
    from rich.panel import Panel

    console = printing.console()
    console.print(Panel(found["answer"], title="answer", border_style="bold"))
    if found["recommendation"] is not None:
        console.print(goals_view(found["recommendation"]))
        for sentence in ["", *_reasons(found["recommendation"]), ""]:
            console.print(sentence)
    console.print(claims_view(_claims(found)))


def goal_rows(recommendation: dict[str, Any]) -> list[printing.Row]:
    """Two rows a goal: the best way, and the one behind it where there is one."""
    rows: list[printing.Row] = []
    for goal in recommendation["goals"]:
        rows.append((goal["goal"], goal["arm"], goal["figure"]))
        if goal["runner_up"]:
            rows.append(("  runner-up", goal["runner_up"], goal["runner_up_figure"]))
    return rows


def _reasons(recommendation: dict[str, Any]) -> list[str]:
    sentences = [f"Why: {recommendation['why']}."]
    if recommendation["runner_up"]:
        sentences.append(f"Runner-up {recommendation['runner_up']}: {recommendation['why_not']}.")
    return sentences


def _claims(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["verdict"], row["sentence"]) for row in found["claims"]]


def goals_view(recommendation: dict[str, Any]) -> Table:
    """The goals with their winners in bold."""
    table = printing.rich_table(("goal", "way", "figure"))
    for goal, way, figure in goal_rows(recommendation):
        table.add_row(goal, way, figure, style="dim" if goal.startswith(" ") else "bold")
    return table


def claims_view(claims: list[tuple[str, str]]) -> Table:
    """Every claim behind the word of its verdict."""
    table = printing.rich_table(("verdict", "claim"))
    for word, sentence in claims:
        table.add_row(printing.styled(word, VERDICTS[word]), sentence)
    return table
