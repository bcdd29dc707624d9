"""`hybridlab plan`: which Whisper beside Voxtral on a card, predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab import catalog
from hybridlab.analysis.pick import DEFAULT_MARGIN_GB, RULE, serve_options
from hybridlab.cli import printing
from hybridlab.cli.app import (
    AsJson,
    Attention,
    AudioS,
    LlmModel,
    MarginGb,
    app,
    cli_errors,
    print_json,
)
from hybridlab.units import format_bytes, gib

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from hybridlab.analysis.plan_report import PlanReport
    from hybridlab.planner import PairPlan

#: Short word and colour of each answer; the word alone is enough.
FITS = {"fits": ("fits", "green"), "depends": ("depends", "yellow"), "does not fit": ("no", "red")}
#: Where sentences wrap that are not printed on a terminal.
PLAIN_WIDTH = 80
#: Least cells that a bar is readable with.
LEAST_BAR = 12
#: What the other columns of the bars take.
BESIDE_BAR = 63
#: Cards that stand side by side within `PLAIN_WIDTH`.
CARDS_ABREAST = 6


@app.command(help=f"Say which Whisper fits beside Voxtral on a card. The pick: {RULE}.")
def plan(
    card: Annotated[
        list[str] | None,
        typer.Option(help="card to plan for, as t4 (the default) or l4; repeatable"),
    ] = None,
    llm_model: LlmModel = "mini-3b",
    llm_dtype: Annotated[str, typer.Option(help=", ".join(["auto", *catalog.LLM_DTYPES]))] = "auto",
    asr_model: Annotated[
        list[str] | None,
        typer.Option(help="a Whisper to plan for, as base.en; repeatable; else the six sizes"),
    ] = None,
    audio_s: AudioS = 30.0,
    new_tokens: Annotated[int, typer.Option(help="tokens generated per request")] = 200,
    beams: Annotated[int, typer.Option(help="Whisper's beams")] = 1,
    batch: Annotated[int, typer.Option(help="requests at once")] = 1,
    attention: Attention = "auto",
    margin_gb: MarginGb = DEFAULT_MARGIN_GB,
    every: Annotated[bool, typer.Option("--all", help="every backend and dtype")] = False,
    as_json: AsJson = False,
) -> None:
    from hybridlab import api

    with cli_errors():
        reports = [
            api.plan(
                name,
                llm_model=llm_model,
                llm_dtype=llm_dtype,
                asr_models=asr_model or catalog.WHISPER_SIZES,
                audio_s=audio_s,
                new_tokens=new_tokens,
                beams=beams,
                batch=batch,
                attention=attention,
                margin_gb=margin_gb,
            )
            for name in dict.fromkeys(card or ["t4"])
        ]
    if as_json:
        found = [report.as_dict() for report in reports]
        print_json(found if len(found) > 1 else found[0])
    elif len(reports) > 1:
        side_by_side(reports)
    elif printing.in_colour():
        drawn(reports[0], every=every)
    else:
        printed(reports[0], every=every)


def printed(report: PlanReport, *, every: bool) -> None:
    """As plain text."""
    from hybridlab.analysis.plan_report import COLUMNS

    rows = report.rows(report.pairs if every else report.by_size)
    _echo(report.heading())
    typer.echo("GiB at the worst moment; % of the card; GiB to spare")
    typer.echo(printing.plain_table([COLUMNS, *rows], right=(1, 2, 5, 6, 7)))
    _echo(*answer(report))


def drawn(report: PlanReport, *, every: bool) -> None:
    """With bars and in colour."""
    from hybridlab.cli import bars

    console = printing.console()
    pairs = report.pairs if every else report.by_size
    console.print(report.heading(), bars.legend(format_bytes(pairs[0].capacity_bytes)), sep="\n")
    console.print(bar_table(pairs, width=console.width, pick=report.pick))
    _echo(*answer(report))


def side_by_side(reports: Sequence[PlanReport]) -> None:
    """A row for each size, a column for each card: GiB to spare of its best combination."""
    from hybridlab.analysis.plan_report import SIZE_COLUMNS, SOURCES, published

    first = reports[0].pairs[0]
    _echo(f"{first.llm_model} and one Whisper: predicted GiB to spare, * the pick for the card")
    for start in range(0, len(reports), CARDS_ABREAST):
        abreast = reports[start : start + CARDS_ABREAST]
        rows = [(*SIZE_COLUMNS, *(report.card.name for report in abreast))]
        for pairs in zip(*(report.by_size for report in abreast), strict=True):
            spare = (
                f"{'*' if pair == report.pick else ''}{gib(pair.margin_bytes):.2f}"
                for pair, report in zip(pairs, abreast, strict=True)
            )
            rows.append((pairs[0].asr_model, *published(pairs[0].asr_model), *spare))
        typer.echo(printing.plain_table(rows, right=range(1, 3 + len(abreast))))
    for report in reports:
        _echo(*answer(report, sources=False))
    _echo(SOURCES)


def answer(report: PlanReport, *, sources: bool = True) -> Iterator[str]:
    """The pick, the line that serves it, what would help other sizes, where figures are from."""
    from hybridlab.analysis.plan_report import SOURCES

    yield report.conclusion()
    if report.pick:
        yield printing.command(serve_options(report.pick), width=PLAIN_WIDTH)
    yield from report.remedies()
    if sources:
        yield SOURCES


def _echo(*paragraphs: str) -> None:
    for text in paragraphs:
        joined = text.replace(" GiB", "\N{NO-BREAK SPACE}GiB")  # a figure keeps its unit
        lines = text.splitlines() if "\n" in text else wrap(joined, PLAIN_WIDTH)
        typer.echo("\n".join(lines).replace("\N{NO-BREAK SPACE}", " "))


def fit_word(fit: str) -> Text:
    """Whether it fits, in its colour."""
    return printing.styled(*FITS[fit])


def bar_table(plans: Sequence[PairPlan], *, width: int, pick: PairPlan | None = None) -> Table:
    """A bar for each pair at its worst moment, all on one scale; sizes and backends are named
    where they change."""
    from hybridlab.analysis.plan_report import SIZE_COLUMNS, published
    from hybridlab.cli import bars

    columns = (*SIZE_COLUMNS, "backend", "dtype", "at the worst moment", "GiB", "verdict")
    table = printing.table(columns, right=(*SIZE_COLUMNS[1:], "GiB"))
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
        size = (row.asr_model, *published(row.asr_model))
        table.add_row(
            *(size if row.asr_model != before[0] else ("", "", "")),
            row.asr_backend if now != before else "",
            row.asr_dtype,
            drawn,
            f"{gib(row.total_bytes):.2f}",
            printing.styled("pick", "bold green") if row == pick else fit_word(row.fit),
        )
        before = now
    return table
