"""`hybridlab fit`: one pair, and how much of everything fits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab import catalog
from hybridlab.analysis.pick import AUTO, DEFAULT_MARGIN_GB, checked_margin_bytes
from hybridlab.cli import bars, printing
from hybridlab.cli.app import (
    AsJson,
    Attention,
    AudioS,
    Card,
    LlmModel,
    MarginGb,
    app,
    cli_errors,
    print_json,
)
from hybridlab.errors import ParameterError
from hybridlab.units import GB, format_alike, format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.analysis.fit_report import FitReport

BACKEND_HELP = f"{', '.join(catalog.BACKENDS)}; auto: the best for this card"
#: What the other columns of the bars take.
BESIDE_BAR = 50


@app.command()
def fit(
    whisper: Annotated[str, typer.Argument(help=", ".join(catalog.WHISPERS))],
    card: Card = "t4",
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = AUTO,
    dtype: Annotated[str, typer.Option(help="what the backend keeps; auto: chosen too")] = AUTO,
    llm_model: LlmModel = "mini-3b",
    audio_s: AudioS = 30.0,
    attention: Attention = "auto",
    margin_gb: MarginGb = DEFAULT_MARGIN_GB,
    host_gb: Annotated[float, typer.Option(help="host memory in GB (Colab's T4: 12.7)")] = 12.7,
    as_json: AsJson = False,
) -> None:
    """Say of one pair how much of everything fits, and on which cards."""
    from hybridlab.analysis.fit_report import evaluate_fit

    with cli_errors():
        if not 0 < host_gb < math.inf:
            raise ParameterError(f"host_gb is {host_gb:g}; give the host's memory, above 0")
        if backend != AUTO:
            catalog.backend(backend)
        answers = evaluate_fit(
            catalog.card(card),
            catalog.whisper(whisper),
            catalog.voxtral(llm_model),
            backend=backend,
            dtype=dtype,
            audio_s=audio_s,
            attention=catalog.attention(attention),
            margin_bytes=checked_margin_bytes(margin_gb),
            host_bytes=int(host_gb * GB),
        )
    if as_json:
        print_json(answers.as_dict())
        return
    console = printing.console()
    console.print(answers.heading())
    if console.color_system:
        console.print(bars.legend(format_bytes(answers.plan.capacity_bytes)))
        console.print(bar_table(answers, width=console.width))
    facts = [(printing.styled(label, "bold"), words) for label, words in answers.facts()]
    console.print(printing.table(("", ""), facts))


def bar_table(answers: FitReport, *, width: int) -> Table:
    """A bar for each moment, owner by owner, then one for each way of sharing at its worst."""
    from hybridlab.cli.plan import LEAST_BAR, fit_word
    from hybridlab.planner.memory_plan import fit_of

    plan = answers.plan
    rows = [
        (name.replace("_", " "), plan.moment(name), bars.owned(plan.expected(name)))
        for name in ("load_peak", "idle", "request_peak")
    ]
    rows += [(way, size, [(bars.WHOLE, size.expected)]) for way, size in answers.sharing.items()]
    scale = max(plan.capacity_bytes, *(size.expected for _, size, _ in rows))
    columns = ("moment, or way to share", "of the card", "bytes", "verdict")
    table = printing.table(columns, right=("bytes",))
    sizes = format_alike([size.expected for _, size, _ in rows])
    for (name, size, parts), shown in zip(rows, sizes, strict=True):
        drawn = bars.bar(
            parts,
            capacity_bytes=plan.capacity_bytes,
            scale_bytes=scale,
            width=max(LEAST_BAR, width - BESIDE_BAR),
        )
        verdict = fit_word(fit_of(size, plan.capacity))
        table.add_row(name, drawn, shown, verdict)
    return table
