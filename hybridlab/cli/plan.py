"""`hybridlab plan`: every Whisper beside Voxtral on a card, predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import (
    AsJson,
    Attention,
    AudioS,
    Card,
    VoxtralName,
    app,
    one_line_errors,
    one_of,
    print_json,
)
from hybridlab.errors import ParameterError
from hybridlab.units import GB, format_bytes, gib

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from hybridlab import catalog, planner
    from hybridlab.planner import PairPlan

VOXTRAL_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")
#: Short word and colour of what the planner says; the word alone is enough.
FITS = {"fits": ("fits", "green"), "depends": ("depends", "yellow"), "does not fit": ("no", "red")}
#: Least cells that a bar is readable with.
LEAST_BAR = 12
#: What the other columns of the bars take.
BESIDE_BAR = 57


@app.command()
def plan(
    card: Card = "t4",
    voxtral: VoxtralName = "mini-3b",
    voxtral_dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16, int8, int4")
    ] = "auto",
    audio_s: AudioS = 30.0,
    new_tokens: Annotated[int, typer.Option(help="tokens generated per request")] = 200,
    beams: Annotated[int, typer.Option(help="Whisper's beams")] = 1,
    batch: Annotated[int, typer.Option(help="requests at once")] = 1,
    attention: Attention = "auto",
    margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    compose: Annotated[
        bool, typer.Option("--compose", help="print docker/.env for the largest Whisper that fits")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict what every Whisper takes beside Voxtral on a card."""
    from hybridlab import catalog, planner

    with one_line_errors():
        if min(audio_s, new_tokens, beams, batch) <= 0:
            raise ParameterError("audio-s, new-tokens, beams and batch must be above zero")
        dtype = one_of("voxtral_dtype", voxtral_dtype, VOXTRAL_DTYPES)
        request = planner.Request(audio_s=audio_s, new_tokens=new_tokens, beams=beams, batch=batch)
        if compose:
            if beams != 1 or attention != "auto" or margin_gb or as_json:
                raise ParameterError(
                    "a server has no beams and no choice of attention; leave --beams, --attention, "
                    "--margin-gb and --json out of --compose"
                )
            _print_compose(catalog.card(card), catalog.voxtral(voxtral), dtype, request)
            return
        plans = planner.plan_table(
            catalog.card(card),
            voxtral=catalog.voxtral(voxtral),
            voxtral_dtype=dtype,
            request=request,
            attention=one_of("attention", attention, catalog.ATTENTIONS) or "auto",
        )
    if as_json:
        print_json([row.as_dict() for row in plans])
        return
    printing.print_paragraph(_title(catalog.card(card), plans[0]))
    if printing.on_terminal():
        _print_bars(plans)
    else:
        typer.echo("GiB while loading, at rest and at work; the share of the card; GiB to spare")
        header = ("whisper", "backend", "dtype", "load", "rest", "work", "card", "spare", "verdict")
        printing.print_table(header, [_figures(row) for row in plans], left=3, gap=1)
    printing.print_paragraph(_best(plans, margin_gb))


def _print_compose(
    card: catalog.Card, voxtral: catalog.VoxtralModel, dtype: str | None, request: planner.Request
) -> None:
    from hybridlab.server.compose import largest_services, lines

    services = largest_services(card, voxtral, voxtral_dtype=dtype, request=request)
    for line in lines(services):
        typer.echo(line)


def _title(card: catalog.Card, first: PairPlan) -> str:
    return (
        f"{first.voxtral} in {first.voxtral_dtype} and one Whisper on {card.title}: predicted, "
        f"{format_bytes(card.usable_bytes)} usable"
    )


def _figures(row: PairPlan) -> printing.Row:
    sizes = (row.load_peak_bytes, row.steady_bytes, row.request_peak_bytes)
    return (
        *(row.whisper, row.backend, row.dtype),
        *(f"{gib(size):.2f}" for size in sizes),
        f"{row.utilization:.0%}",
        f"{gib(row.margin_bytes):.2f}",
        row.fit,
    )


def _best(plans: list[PairPlan], margin_gb: float) -> str:
    from hybridlab import planner

    best = planner.largest_whisper(plans, margin_bytes=int(margin_gb * GB))
    if best is None:
        return f"No Whisper leaves {margin_gb:g} GB free."
    return (
        f"Largest Whisper that leaves {margin_gb:g} GB: {best.whisper} ({best.backend}, "
        f"{best.dtype}), {format_bytes(best.margin_bytes)} to spare."
    )


def _print_bars(plans: list[PairPlan]) -> None:
    from hybridlab.cli import bars

    console = printing.console()
    console.print(bars.legend(format_bytes(plans[0].capacity_bytes)))
    console.print(plan_view(plans, width=console.width))


def fit_word(fit: str) -> Text:
    """The planner's word in its colour."""
    return printing.styled(*FITS[fit])


def plan_view(plans: list[PairPlan], *, width: int) -> Table:
    """A bar for each pair at its worst moment, all on one scale; sizes and backends are named
    where they change."""
    from hybridlab.cli import bars

    table = printing.rich_table(
        ("whisper", "backend", "dtype", "at the worst moment", "GiB", "card", "verdict"),
        right=("GiB", "card"),
    )
    scale = max(max(row.total_bytes, row.capacity_bytes) for row in plans)
    cells = max(LEAST_BAR, width - BESIDE_BAR)
    before: tuple[str, str] = ("", "")
    for row in plans:
        now = (row.whisper, row.backend)
        drawn = bars.bar(
            bars.owned(row.expected(bars.worst_moment(row))),
            capacity_bytes=row.capacity_bytes,
            scale_bytes=scale,
            width=cells,
        )
        table.add_row(
            row.whisper if row.whisper != before[0] else "",
            row.backend if now != before else "",
            row.dtype,
            drawn,
            f"{gib(row.total_bytes):.2f}",
            f"{row.utilization:.0%}",
            fit_word(row.fit),
        )
        before = now
    return table
