"""`hybridlab plan`: every Whisper beside Voxtral on a card, predicted."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab import catalog
from hybridlab.cli import printing
from hybridlab.cli.app import (
    AsJson,
    Attention,
    AudioS,
    Card,
    LlmModel,
    app,
    cli_errors,
    print_json,
)
from hybridlab.units import format_bytes, gib

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from hybridlab.planner import PairPlan

#: Short word and colour of each answer; the word alone is enough.
FITS = {"fits": ("fits", "green"), "depends": ("depends", "yellow"), "does not fit": ("no", "red")}
#: Where sentences wrap that are not printed on a terminal.
PLAIN_WIDTH = 80
#: Least cells that a bar is readable with.
LEAST_BAR = 12
#: What the other columns of the bars take.
BESIDE_BAR = 57


@app.command()
def plan(
    card: Card = "t4",
    llm_model: LlmModel = "mini-3b",
    llm_dtype: Annotated[str, typer.Option(help=", ".join(["auto", *catalog.LLM_DTYPES]))] = "auto",
    audio_s: AudioS = 30.0,
    new_tokens: Annotated[int, typer.Option(help="tokens generated per request")] = 200,
    beams: Annotated[int, typer.Option(help="Whisper's beams")] = 1,
    batch: Annotated[int, typer.Option(help="requests at once")] = 1,
    attention: Attention = "auto",
    margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Predict what every Whisper takes beside Voxtral on a card."""
    from hybridlab import api
    from hybridlab.planner.plan_report import COLUMNS

    with cli_errors():
        report = api.plan(
            card,
            llm_model=llm_model,
            llm_dtype=llm_dtype,
            audio_s=audio_s,
            new_tokens=new_tokens,
            beams=beams,
            batch=batch,
            attention=attention,
        )
    if as_json:
        print_json(report.as_dicts())
        return
    title, best = report.heading(), report.conclusion(margin_gb=margin_gb)
    if printing.in_colour():
        from hybridlab.cli import bars

        console = printing.console()
        legend = bars.legend(format_bytes(report.pairs[0].capacity_bytes))
        console.print(title, legend, bar_table(report.pairs, width=console.width), best, sep="\n")
        return
    typer.echo(fill(title, PLAIN_WIDTH))
    typer.echo("GiB at load peak, idle and request peak; share of the card; GiB to spare")
    typer.echo(printing.plain_table([COLUMNS, *report.rows()], right=range(3, 8)))
    typer.echo(fill(best, PLAIN_WIDTH))


def fit_word(fit: str) -> Text:
    """Whether it fits, in its colour."""
    return printing.styled(*FITS[fit])


def bar_table(plans: Sequence[PairPlan], *, width: int) -> Table:
    """A bar for each pair at its worst moment, all on one scale; sizes and backends are named
    where they change."""
    from hybridlab.cli import bars

    columns = ("asr", "backend", "dtype", "at the worst moment", "GiB", "card", "verdict")
    table = printing.table(columns, right=("GiB", "card"))
    scale = max(max(row.total_bytes, row.capacity_bytes) for row in plans)
    cells = max(LEAST_BAR, width - BESIDE_BAR)
    before: tuple[str, str] = ("", "")
    for row in plans:
        now = (row.asr_model, row.asr_backend)
        drawn = bars.bar(
            bars.owned(row.expected(bars.worst_moment(row))),
            capacity_bytes=row.capacity_bytes,
            scale_bytes=scale,
            width=cells,
        )
        table.add_row(
            row.asr_model if row.asr_model != before[0] else "",
            row.asr_backend if now != before else "",
            row.asr_dtype,
            drawn,
            f"{gib(row.total_bytes):.2f}",
            f"{row.utilization:.0%}",
            fit_word(row.fit),
        )
        before = now
    return table
