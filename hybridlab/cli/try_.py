"""`hybridlab try`: the reader's own files through a real Whisper."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hybridlab import catalog
from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, cli_errors, print_json
from hybridlab.units import format_alike, format_number, format_seconds

if TYPE_CHECKING:
    from hybridlab.experiments.transcription import BackendResult, Comparison

MODEL_HELP = f"a Whisper: {', '.join(name for name in catalog.WHISPERS)}"


@app.command("try")
def try_(
    files: Annotated[list[Path], typer.Argument(help="audio files", metavar="FILE...")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "base",
    language: Annotated[str, typer.Option(help="as de or German; '': detected")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="a folder in hub format; else the hub's weights")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Transcribe your own files through every installed backend."""
    from hybridlab import api
    from hybridlab.cli.progress import fetching

    with cli_errors(), fetching() as state:
        found = api.transcribe(
            files,
            model=model,
            language=language,
            weights=weights,
            device=device,
            listener=lambda backend: typer.echo(f"{backend} …", err=True),
            fetching=state,
        )
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)
    if not found.ran:
        raise typer.Exit(1)


def _show(found: Comparison) -> None:
    typer.echo(f"Whisper {found.model} (weights: {found.weights}) on {found.device}")
    if found.warning:
        typer.echo(f"note: {found.warning}")
    for line in found.left_out:
        typer.echo(f"left out: {line}")
    for number, file in enumerate(found.files):
        typer.echo(f"\n{file.path}, {format_seconds(file.audio_s)}")
        if file.note:
            typer.echo(f"note: {file.note}")
        if found.ran:
            typer.echo(_figures(found.ran, number))
        for line in _texts(found.ran, number):
            typer.echo(line)
    if found.ran:
        typer.echo("\nmemory: at most while it transcribed; libraries, weights and work")
    for one in found.backends:
        if one.reason:
            typer.echo(f"{one.backend}: {one.reason}")


def _figures(results: list[BackendResult], number: int) -> str:
    """A row for each backend."""
    rows = [("", "dtype", "took", "RTFx", "memory", "loaded in", "language")]
    memory = format_alike([one.memory_bytes or 0 for one in results])
    for one, held in zip(results, memory, strict=True):
        said = one.transcripts[number]
        rows.append(
            (
                one.backend,
                one.dtype,
                f"{said.seconds:.2f} s",
                format_number(said.rtfx),
                held,
                f"{one.load_s or 0.0:.2f} s",
                said.language,
            )
        )
    return printing.plain_table(rows, right=range(2, 6))


def _texts(results: list[BackendResult], number: int) -> list[str]:
    """The texts one under the other; of equal ones one, with the names of all that say so."""
    from hybridlab.analysis.texts import CUT_SHORT

    def said(one: BackendResult) -> tuple[str, str]:
        transcript = one.transcripts[number]
        return transcript.text, CUT_SHORT.get(transcript.finish_reason, "")

    lines = []
    for (text, cut), own in groupby(sorted(results, key=said), key=said):
        names = ", ".join(one.backend for one in own)
        lines += [f"{names}{f' ({cut})' if cut else ''}:", f"  {text or '(no words)'}"]
    return lines
