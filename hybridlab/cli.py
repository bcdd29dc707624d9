"""The `hybridlab` command. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridlab.errors import HybridlabError, ParameterError

app = typer.Typer(
    help="Which Whisper fits beside Voxtral on one device, and how should they share it?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """The lab's own errors as one line on stderr and exit code 2; Ctrl-C as exit code 130."""
    try:
        yield
    except HybridlabError as error:
        typer.echo(f"hybridlab: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("hybridlab: interrupted; go on with --resume --output DIR", err=True)
        raise typer.Exit(130) from None


Card = Annotated[str, typer.Option(help="card to plan for, as t4 or l4")]
VoxtralName = Annotated[str, typer.Option(help="mini-3b or pocket")]
VoxtralDtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, int8, int4")]
Attention = Annotated[
    str, typer.Option(help="auto (what transformers does), math, efficient, flash, expanded_kv")
]
AudioS = Annotated[float, typer.Option(help="length of the audio in seconds")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def plan(
    card: Card = "t4",
    voxtral: VoxtralName = "mini-3b",
    voxtral_dtype: VoxtralDtype = "auto",
    audio_s: AudioS = 30.0,
    new_tokens: Annotated[int, typer.Option(help="tokens generated per request")] = 200,
    beams: Annotated[int, typer.Option(help="Whisper's beams")] = 1,
    batch: Annotated[int, typer.Option(help="requests at once")] = 1,
    attention: Attention = "auto",
    margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Predict what every Whisper takes beside Voxtral on a card."""
    from hybridlab import catalog, planner

    with one_line_errors():
        if min(audio_s, new_tokens, beams, batch) <= 0:
            raise ParameterError("audio-s, new-tokens, beams and batch must be above zero")
        plans = planner.plan_table(
            catalog.card(card),
            voxtral=catalog.voxtral(voxtral),
            voxtral_dtype=_one_of("voxtral_dtype", voxtral_dtype, VOXTRAL_DTYPES),
            request=planner.Request(
                audio_s=audio_s, new_tokens=new_tokens, beams=beams, batch=batch
            ),
            attention=_one_of("attention", attention, catalog.ATTENTIONS) or "auto",
        )
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in plans], indent=2))
        return
    _print_plan(catalog.card(card), plans, margin_gb)


VOXTRAL_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> Any:
    """A checked choice; None for 'auto'."""
    if value not in known:
        raise ParameterError.unknown_name(name, value, known)
    return None if value == "auto" else value


def _print_plan(card: Any, plans: list[Any], margin_gb: float) -> None:
    from hybridlab import planner
    from hybridlab.units import GB, format_bytes

    header = ("whisper", "backend", "dtype", "load peak", "steady", "request", "of card", "margin")
    lines: list[tuple[str, ...]] = [
        (
            p.whisper,
            p.backend,
            p.dtype,
            format_bytes(p.load_peak_bytes),
            format_bytes(p.steady_bytes),
            format_bytes(p.request_peak_bytes),
            f"{p.utilization:.0%}",
            f"{format_bytes(p.margin_bytes)}{'' if p.fit == 'fits' else '  ' + p.fit}",
        )
        for p in plans
    ]
    first = plans[0]
    typer.echo(
        f"{first.voxtral} in {first.voxtral_dtype} and one Whisper on {card.title}: predicted, "
        f"{format_bytes(card.usable_bytes)} usable"
    )
    _print_table(header, lines, left=3)
    best = planner.largest_whisper(plans, margin_bytes=int(margin_gb * GB))
    if best is None:
        typer.echo(f"No Whisper leaves {margin_gb:g} GB free.")
        return
    typer.echo(
        f"Largest Whisper that leaves {margin_gb:g} GB: {best.whisper} ({best.backend}, "
        f"{best.dtype}), {format_bytes(best.margin_bytes)} to spare."
    )


def _print_table(header: tuple[str, ...], lines: list[tuple[str, ...]], *, left: int) -> None:
    """Columns as wide as they must be: the first `left` and the last flush left, others right."""
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    for row in (header, *lines):
        cells = [
            cell.ljust(width) if i < left or i == len(header) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())


@app.command()
def fit(
    whisper: Annotated[str, typer.Argument(help="tiny, base, small, medium, large-v3 or turbo")],
    card: Card = "t4",
    backend: Annotated[
        str, typer.Option(help="openai-whisper, transformers, faster-whisper")
    ] = "openai-whisper",
    dtype: Annotated[str, typer.Option(help="what the backend keeps; auto: its default")] = "auto",
    voxtral: VoxtralName = "mini-3b",
    audio_s: AudioS = 30.0,
    attention: Attention = "auto",
    host_gb: Annotated[float, typer.Option(help="host memory in GB (Colab's T4: 12.7)")] = 12.7,
    as_json: AsJson = False,
) -> None:
    """Ask about one pair: how much of everything fits, and on which cards?"""
    from hybridlab import catalog
    from hybridlab.planner.answers import ask

    with one_line_errors():
        if backend not in catalog.BACKENDS:
            raise ParameterError.unknown_name("backend", backend, catalog.BACKENDS)
        answers = ask(
            catalog.card(card),
            catalog.whisper(whisper),
            catalog.voxtral(voxtral),
            backend=backend,
            dtype=catalog.BACKEND_DEFAULT_DTYPE[backend] if dtype == "auto" else dtype,
            audio_s=audio_s,
            attention=_one_of("attention", attention, catalog.ATTENTIONS) or "auto",
            host_bytes=int(host_gb * 10**9),
        )
    typer.echo(json.dumps(answers.as_dict(), indent=2) if as_json else answers.text())


@app.command()
def run(
    params: Annotated[Path, typer.Argument(help="a flat YAML file, as in params/")],
    only: Annotated[str, typer.Option(help="notebooks by number, as 02,06")] = "",
    p: Annotated[
        list[str] | None, typer.Option("-p", help="a parameter as name=value, repeatable")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="the run's folder")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="repeat only what is missing")] = False,
) -> None:
    """Run the notebooks headlessly into one run folder with a report."""
    from hybridlab.params import parse_override, read_yaml

    with one_line_errors():
        values = read_yaml(params)
        for item in p or []:
            name, separator, text = item.partition("=")
            if not separator:
                raise ParameterError(f"-p {item!r} has no value; write -p {item} VALUE")
            values[name] = parse_override(name, text)
        from hybridlab.suite import run_suite, succeeded

        with progress_bar() as listener:
            run_dir = run_suite(
                values,
                preset=params.stem,
                only=[name.strip() for name in only.split(",") if name.strip()] or None,
                output=output,
                resume=resume,
                listener=listener,
            )
    for line in outcome_lines(run_dir):
        typer.echo(line)
    typer.echo(f"report: {_short(run_dir / 'index.html')}")
    if not succeeded(run_dir):
        raise typer.Exit(1)


def outcome_lines(run_dir: Path) -> list[str]:
    """One line for each notebook: what became of it, in how many seconds."""
    from hybridlab.records import read_manifest
    from hybridlab.units import format_seconds

    outcomes = read_manifest(run_dir).get("notebooks", {})
    return [
        f"{name:28} {outcome['status']:10} {format_seconds(outcome['seconds']):>12}  "
        f"{outcome['reason']}".rstrip()
        for name, outcome in outcomes.items()
    ]


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter to read."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar over notebooks and cases with the time left; plain lines without a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_listener()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[cases]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("notebooks", total=1.0, cases="")

        def listen(state: Any) -> None:
            share = state.cases_done / state.cases_total if state.cases_total else 0.0
            bar.update(
                task,
                description=state.current,
                total=float(len(state.notebooks)),
                completed=state.finished + min(share, 0.99),
                cases=f"{state.cases_done}/{state.cases_total} cases" if state.cases_total else "",
            )

        yield listen


def _plain_listener() -> Any:
    said: list[str] = []

    def listen(state: Any) -> None:
        if state.current and state.current not in said:
            said.append(state.current)
            typer.echo(f"[{len(said)}/{len(state.notebooks)}] {state.current}", err=True)

    return listen


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="a run folder")]) -> None:
    """Build a run's index.html again from its tables."""
    with one_line_errors():
        from hybridlab.report import build_report

        typer.echo(f"report: {_short(build_report(run_dir.expanduser().absolute()))}")


@app.command()
def verdict(
    run_dir: Annotated[Path, typer.Argument(help="a run folder")],
    max_p95_s: Annotated[float, typer.Option(help="most seconds for 95 % of requests")] = 0.0,
    min_margin_gb: Annotated[float, typer.Option(help="GB that must stay free")] = 0.0,
    max_wer: Annotated[float, typer.Option(help="most words wrong, 0.05 is 5 %")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say which way of sharing a run recommends, and what became of every claim."""
    from hybridlab.records import plain
    from hybridlab.units import GB
    from hybridlab.verdict import Constraints, read_verdict

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
        typer.echo(json.dumps(plain(found), indent=2))
        return
    _print_verdict(found)


def _print_verdict(found: dict[str, Any]) -> None:
    typer.echo(found["answer"])
    recommendation = found["recommendation"]
    if recommendation is not None:
        header = ("goal", "pick", "its figure", "runner-up", "the runner-up's")
        names = ("goal", "arm", "figure", "runner_up", "runner_up_figure")
        goals: list[tuple[str, ...]] = [
            tuple(goal[name] for name in names) for goal in recommendation["goals"]
        ]
        typer.echo("")
        _print_table(header, goals, left=len(header))
        typer.echo(f"\nWhy: {recommendation['why']}.")
        if recommendation["runner_up"]:
            why_not = recommendation["why_not"]
            typer.echo(f"Runner-up {recommendation['runner_up']}: {why_not}.")
    typer.echo("")
    claims: list[tuple[str, ...]] = [(row["verdict"], row["sentence"]) for row in found["claims"]]
    _print_table(("verdict", "claim"), claims, left=2)


@app.command()
def serve(
    voxtral: VoxtralName = "pocket",
    voxtral_weights: Annotated[str, typer.Option(help="auto, hub, local, random, pocket")] = "auto",
    voxtral_path: Annotated[str, typer.Option(help="folder of local weights")] = "",
    voxtral_dtype: VoxtralDtype = "auto",
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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
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
    from hybridlab.serve.run import run as serve_until_stopped

    with one_line_errors():
        serve_until_stopped(options)


def main() -> None:
    """Entry point; `-p name value` is accepted beside `-p name=value`."""
    app(args=join_overrides(sys.argv[1:]))


def join_overrides(arguments: list[str]) -> list[str]:
    """`-p name value`, as papermill writes it, becomes `-p name=value`."""
    joined: list[str] = []
    index = 0
    while index < len(arguments):
        item = arguments[index]
        following = arguments[index + 1 : index + 3]
        if item == "-p" and len(following) == 2 and "=" not in following[0]:
            joined += ["-p", f"{following[0]}={following[1]}"]
            index += 3
        else:
            joined.append(item)
            index += 1
    return joined


if __name__ == "__main__":
    main()
