"""`hybridlab verdict`: what a run recommends, and what became of every claim."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, cli_errors, print_json, run_folder

if TYPE_CHECKING:
    from rich.table import Table

#: Colours of the verdicts.
VERDICTS = {
    "supported": "green",
    "refuted": "red",
    "inconclusive": "yellow",
    "not testable here": "dim",
}


@app.command()
def verdict(
    run_dir: Annotated[
        Path | None,
        typer.Argument(help="a run folder", show_default="the newest in outputs/"),
    ] = None,
    max_p95_s: Annotated[float, typer.Option(help="most seconds for 95 % of requests")] = 0.0,
    min_margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    max_wer: Annotated[float, typer.Option(help="most words wrong, 0.05 is 5 %")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say what a run recommends, and what became of every claim."""
    from hybridlab import api
    from hybridlab.results.writer import plain

    with cli_errors():
        run = api.Run(run_folder(run_dir))
        found = run.verdict(max_p95_s=max_p95_s, min_margin_gb=min_margin_gb, max_wer=max_wer)
    if as_json:
        print_json(plain(found))
        return
    console = printing.console()
    console.print(printing.styled(found["answer"], "bold"))
    if (best := found["recommendation"]) is not None:
        console.print("", goal_table(best), f"Why: {best['why']}.", sep="\n")
        if best["runner_up"]:
            console.print(f"Runner-up {best['runner_up']}: {best['why_not']}.")
        console.print(*best.get("notes", []), sep="\n")
    console.print()
    console.print(claim_table(found["claims"]))


def goal_table(recommendation: dict[str, Any]) -> Table:
    """Two rows a goal: the best way, and the one behind it where there is one."""
    table = printing.table(("goal", "way", "figure"))
    for goal in recommendation["goals"]:
        table.add_row(goal["goal"], goal["arm"], goal["figure"], style="bold")
        if goal["runner_up"]:
            behind = (goal["runner_up"], goal["runner_up_figure"])
            table.add_row("  runner-up", *behind, style="dim")
    return table


def claim_table(claims: list[dict[str, Any]]) -> Table:
    """Every claim behind its verdict."""
    rows = [
        (printing.styled(row["verdict"], VERDICTS[row["verdict"]]), row["expected"])
        for row in claims
    ]
    return printing.table(("verdict", "claim"), rows)
