"""`hybridlab serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from hybridlab.cli.app import app, one_line_errors


@app.command()
def serve(
    voxtral: Annotated[str, typer.Option(help="mini-3b or pocket")] = "pocket",
    voxtral_weights: Annotated[str, typer.Option(help="auto, hub, local, random, pocket")] = "auto",
    voxtral_path: Annotated[str, typer.Option(help="folder of local weights")] = "",
    voxtral_dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16, int8, int4")
    ] = "auto",
    whisper: Annotated[str, typer.Option(help="size, as base, large-v3, pocket-m")] = "pocket-m",
    whisper_backend: Annotated[
        str, typer.Option(help="openai-whisper, transformers, faster-whisper")
    ] = "openai-whisper",
    whisper_weights: Annotated[str, typer.Option(help="auto, hub, local, random, pocket")] = "auto",
    whisper_path: Annotated[str, typer.Option(help="folder of local weights")] = "",
    whisper_dtype: Annotated[str, typer.Option(help="what the backend keeps")] = "auto",
    only: Annotated[str, typer.Option(help="one tenant alone: whisper or voxtral")] = "",
    strategy: Annotated[
        str, typer.Option(help="solo, sequential, parallel, pipelined, swapping")
    ] = "sequential",
    variant: Annotated[str, typer.Option(help="of the strategy, as batched")] = "batched",
    fallback: Annotated[
        str, typer.Option(help="smaller Whispers for when memory runs out, or none")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, simulated:CARD")] = "auto",
    seed: Annotated[int, typer.Option(help="of random weights")] = 0,
    cores_board: Annotated[
        str, typer.Option(help="file by which servers on one CPU share its cores")
    ] = "",
    host: Annotated[str, typer.Option(help="address; other than loopback needs a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    token_file: Annotated[
        str, typer.Option(help="file with the bearer token; else HYBRIDLAB_TOKEN")
    ] = "",
    language: Annotated[str, typer.Option(help="where a request names none; '': detect")] = "en",
    batch: Annotated[int, typer.Option(help="most requests in one call to a model")] = 8,
    queue: Annotated[int, typer.Option(help="most requests of a kind that wait")] = 64,
    max_upload_mb: Annotated[float, typer.Option(help="largest upload in MB")] = 25.0,
    max_audio_s: Annotated[float, typer.Option(help="longest audio in seconds")] = 2400.0,
    max_new_tokens: Annotated[int, typer.Option(help="most tokens of an answer")] = 1024,
    request_timeout_s: Annotated[float, typer.Option(help="seconds from upload to answer")] = 300.0,
    room_gb: Annotated[float, typer.Option(help="GB that requests may take; 0: what is free")] = 0,
    clean_every: Annotated[
        int, typer.Option(help="give memory back after so many calls; 0: never")
    ] = 0,
    restart_above: Annotated[
        float, typer.Option(help="restart a worker above this fragmentation; 1: never")
    ] = 1.0,
) -> None:
    """Serve the pair over HTTP, as OpenAI's API and as one call for both."""
    options = dict(locals())
    from hybridlab.server.run import run as serve_until_stopped
    from hybridlab.simulation.environment import begin_again

    with one_line_errors():
        begin_again(device)
        serve_until_stopped(options)
