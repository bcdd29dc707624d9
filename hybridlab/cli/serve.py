"""`hybridlab serve`: its options are the fields of `hybridlab.server.settings.Settings`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand
from typer.main import get_command

from hybridlab.cli.app import app, cli_errors
from hybridlab.config.renamed import PARAMETERS
from hybridlab.errors import ParameterError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

#: Options that had another name.
RENAMED = {
    "--room-gb": "--request-memory-gb",
    "--queue": "--max-queue",
    "--climb-after-s": "--retry-larger-after-s",
    "--whisper": "--asr-model",
} | {
    f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-")
    for old, new in PARAMETERS.items()
    if old.startswith(("voxtral", "whisper"))
}


class ServeCommand(TyperCommand):
    """Its options are made from `Settings` when they are needed: other commands start without."""

    def get_params(self, ctx: Any) -> list[Any]:
        if not self.params:
            made = typer.Typer(add_completion=False)
            made.command()(_with_options())
            command = get_command(made)
            self.params, self.callback = command.params, command.callback
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with cli_errors():
            for argument in args:
                name = argument.partition("=")[0]
                if name in RENAMED:
                    raise ParameterError(f"{name} is now {RENAMED[name]}")
        return super().parse_args(ctx, args)


def _with_options() -> Callable[..., None]:
    """What serves, with an option for each field, whose values `Settings` checks."""
    from hybridlab.server.settings import Settings

    def serve_with(**options: Any) -> None:
        from hybridlab.server.run import run
        from hybridlab.simulation.environment import begin_again

        with cli_errors():
            begin_again(options["device"])
            run(options)

    parameters = [_option(name, field) for name, field in Settings.model_fields.items()]
    serve_with.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return serve_with


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    known = [*_choices(field.annotation), *(n for own in field.metadata for n in _names(own))]
    choices = ", ".join(choice for choice in known if choice)
    text = f"{field.description} ({choices})" if choices else str(field.description)
    kind = Annotated[type(field.default), typer.Option(help=text)]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kind
    )


def _choices(annotation: Any) -> list[str]:
    """Values of a `Literal`, or of a union of them."""
    found: list[str] = []
    for choice in get_args(annotation):
        found += _choices(choice) if get_args(choice) else [choice]
    return [choice for choice in found if isinstance(choice, str)]


def _names(constraint: Any) -> list[str]:
    """Names of a registry, where that is what an option is checked against."""
    from hybridlab.config.choices import OneOf

    return list(constraint.names()) if isinstance(constraint, OneOf) else []


@app.command(cls=ServeCommand)
def serve() -> None:
    """Serve both models over HTTP, as OpenAI's API does."""
