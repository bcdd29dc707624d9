"""`hybridlab estimate`: what one model takes by itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hybridlab import catalog
from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, Attention, AudioS, Card, app, cli_errors, print_json
from hybridlab.units import format_alike


@app.command()
def estimate(
    model: Annotated[str, typer.Argument(help=", ".join([*catalog.WHISPERS, *catalog.VOXTRALS]))],
    backend: Annotated[
        str, typer.Option(help=f"of a Whisper: {', '.join(catalog.BACKENDS)}")
    ] = "transformers",
    dtype: Annotated[str, typer.Option(help="of the weights; auto: the default")] = "auto",
    card: Card = "t4",
    audio_s: AudioS = 30.0,
    batch: Annotated[int, typer.Option(help="clips at once")] = 1,
    beams: Annotated[int, typer.Option(help="of a Whisper")] = 1,
    new_tokens: Annotated[int, typer.Option(help="tokens that are generated")] = 200,
    attention: Attention = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict what one model takes by itself, with ranges."""
    from hybridlab.analysis.pick import checked_request
    from hybridlab.planner import Request
    from hybridlab.planner.model_estimate import checked_dtype, estimate_model

    with cli_errors():
        known = catalog.card(card)
        # a Whisper takes any length, a window after the other
        asked_of = checked_request if model in catalog.VOXTRALS else Request
        dtype = checked_dtype(model, known, backend, dtype)
        figures = estimate_model(
            model,
            known,
            asked_of(audio_s=audio_s, batch=batch, beams=beams, new_tokens=new_tokens),
            backend=backend,
            dtype=dtype,
            attention=catalog.attention(attention),
        )
    asked = {"model": model, "backend": backend, "dtype": dtype, "card": card}
    if as_json:
        print_json(asked | {name: asdict(figure) for name, figure in figures.items()})
        return
    typer.echo(f"{model} ({backend}, {dtype}) by itself on {known.title}: predicted")
    bounds = [n_bytes for size in figures.values() for n_bytes in asdict(size).values()]
    cells = iter(format_alike(bounds))
    rows = [
        (name.removesuffix("_bytes").replace("_", " "), next(cells), next(cells), next(cells))
        for name in figures
    ]
    head = ("", "low", "expected", "high")
    typer.echo(printing.plain_table([head, *rows], right=range(1, 4)))
