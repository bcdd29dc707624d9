"""The command itself: its entry point, its errors, and the options that commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any

import typer

from hybridlab import catalog
from hybridlab.errors import HybridlabError

#: Each is a module of this package.
COMMANDS = [
    "doctor",
    "estimate",
    "fetch",
    "fit",
    "migrate",
    "new",
    "plan",
    "report",
    "run",
    "serve",
    "simulate",
    "try",
    "verdict",
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Card = Annotated[str, typer.Option(help="card to plan for, as t4 or l4")]
MarginGb = Annotated[float, typer.Option(help="GB that must stay free for other programs")]
LlmModel = Annotated[str, typer.Option(help=" or ".join(catalog.VOXTRALS))]
Attention = Annotated[
    str, typer.Option(help=f"{', '.join(catalog.ATTENTIONS)}; auto: what transformers does")
]
AudioS = Annotated[float, typer.Option(help="length of the audio in seconds")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@contextmanager
def cli_errors(after_interrupt: Callable[[], str] = str) -> Iterator[None]:
    """The lab's own errors as one line on stderr and exit code 2; Ctrl-C as exit code 130, with
    what then helps, if anything does."""
    try:
        yield
    except HybridlabError as error:
        typer.echo(f"hybridlab: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("; ".join(filter(None, ("hybridlab: interrupted", after_interrupt()))), err=True)
        raise typer.Exit(130) from None


def print_json(value: Any) -> None:
    """For a program: nothing else stands on stdout."""
    typer.echo(json.dumps(value, indent=2))


def relative_path(path: Path) -> str:
    """Relative to the current folder where that is shorter to read."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run_folder(given: Path | None = None) -> Path:
    """The folder that was named, else the newest."""
    from hybridlab.results.run_folder import newest_run

    return newest_run() if given is None else given.expanduser().absolute()


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hybridlab {version('hybridlab')}")
        raise typer.Exit


@app.callback()
def hybridlab(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="say it")
    ] = False,
) -> None:
    """Which Whisper fits beside Voxtral on one device, and how should they share it?"""


def main() -> None:
    """Entry point."""
    arguments = join_overrides(sys.argv[1:])
    called = arguments[0] if arguments else ""
    # the other commands' modules and options would cost time
    import_module(module_of(called) if called in COMMANDS else "hybridlab.cli.commands")
    app(args=arguments)


def module_of(command: str) -> str:
    """A module may not be called `try`."""
    return f"hybridlab.cli.{f'{command}_' if iskeyword(command) else command}"


def join_overrides(arguments: list[str]) -> list[str]:
    """`-p name value` of `run` and `fetch`, as papermill writes it, becomes `-p name=value`."""
    if arguments[:1] not in (["run"], ["fetch"]):  # `simulate` passes on options of other programs
        return arguments
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
