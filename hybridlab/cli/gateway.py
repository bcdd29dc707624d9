"""`hybridlab gateway`."""

from __future__ import annotations

from typing import Annotated

import typer

from hybridlab.cli.app import app, one_line_errors


@app.command()
def gateway(
    whisper_url: Annotated[str, typer.Option(help="a server started with --only whisper")],
    voxtral_url: Annotated[str, typer.Option(help="a server started with --only voxtral")],
    host: Annotated[str, typer.Option(help="address; other than loopback needs a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    token_file: Annotated[
        str,
        typer.Option(
            help="file with the bearer token; else HYBRIDLAB_TOKEN; HYBRIDLAB_UPSTREAM_TOKEN where "
            "the servers behind have another"
        ),
    ] = "",
    queue: Annotated[int, typer.Option(help="most requests under way")] = 16,
    max_upload_mb: Annotated[float, typer.Option(help="largest upload in MB")] = 25.0,
    request_timeout_s: Annotated[
        float, typer.Option(help="most seconds that a server behind says nothing")
    ] = 310.0,
) -> None:
    """Offer a server with Whisper and one with Voxtral as one."""
    options = dict(locals())
    from hybridlab.server.gateway_run import run as pass_on_until_stopped

    with one_line_errors():
        pass_on_until_stopped(options)
