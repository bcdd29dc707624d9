"""`hybridlab fetch`: the weights that a preset's notebooks load, onto this machine, before anything
is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridlab.cli import printing
from hybridlab.cli.app import AsJson, app, cli_errors, print_json
from hybridlab.cli.run import Only, Overrides, Preset, overrides_of
from hybridlab.units import format_decimal_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from hybridlab.models.base import ModelSpec
    from hybridlab.models.provision import Provision


AFTER_INTERRUPT = "what has arrived whole is kept; the same line goes on"


@app.command()
def fetch(
    params: Preset,
    only: Only = "",
    p: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what is missing")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="sum every file; fetch damaged ones again")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download the weights that a preset's notebooks load. What is here already is kept."""
    from hybridlab.cli.progress import fetching
    from hybridlab.models import provision
    from hybridlab.models.checkpoint_sums import forget_damaged

    with cli_errors(lambda: AFTER_INTERRUPT):
        specs = wanted(params, only, p)
        if verify and not dry_run:
            for path in [path for spec in specs for path in forget_damaged(spec)]:
                typer.echo(f"damaged, deleted: {path}", err=True)
        found = provision.inspect(specs)
        if not as_json:
            if found:
                printing.console().print(table(found))
            typer.echo(summary(found))
        if not dry_run:
            with fetching() as listener:
                provision.complete(found, listener=listener, verify=verify)
    if as_json:
        print_json(report(found, fetched=not dry_run))


def wanted(params: str, only: str, overrides: Sequence[str] | None) -> list[ModelSpec]:
    """All models of the notebooks that this file of parameters runs."""
    from hybridlab.config.params import split
    from hybridlab.config.preset_files import NONE, TO_BE_GIVEN, parameter_file, read_yaml
    from hybridlab.experiments.notebook_runner import chosen
    from hybridlab.models.pair import specs_of

    path = parameter_file(params)
    values = {"preset": NONE, **read_yaml(path), **overrides_of(overrides)}
    if values.get("audio") == TO_BE_GIVEN:
        del values["audio"]  # no weights depend on it
    names = [name.strip() for name in only.split(",") if name.strip()]
    resolved = split(values, chosen(names or None, path.stem))
    return [spec for one in resolved.values() for spec in specs_of(one)]


def table(found: Sequence[Provision]) -> Table:
    """A row for each checkpoint."""
    from hybridlab.models.checkpoint import name_of

    rows = [
        (
            name_of(one.spec),
            one.checkpoint.commit[:12],
            str(len(one.checkpoint.files)),
            format_decimal_bytes(one.checkpoint.n_bytes),
            "to fetch" if one.missing else "here",
        )
        for one in found
    ]
    return printing.table(
        ("checkpoint", "commit", "files", "size", "state"), rows, right=("files", "size")
    )


def summary(found: Sequence[Provision]) -> str:
    """What is missing in all, and the room there is for it."""
    if not found:
        return "nothing to fetch: these parameters load no released weights"
    missing = sum(one.missing_bytes for one in found)
    total = sum(one.checkpoint.n_bytes for one in found)
    if not missing:
        return f"all {format_decimal_bytes(total)} are here"
    rooms = " and ".join(f"{format_decimal_bytes(free)} at {at}" for at, free in _rooms(found))
    return (
        f"{format_decimal_bytes(missing)} of {format_decimal_bytes(total)} to fetch; free: {rooms}"
    )


def _rooms(found: Sequence[Provision]) -> list[tuple[Path, int]]:
    """Folders into which something is fetched, and what is free there."""
    from hybridlab.models.provision import cache_of, free_bytes

    folders = dict.fromkeys(cache_of(one) for one in found if one.missing)
    return [(folder, free_bytes(folder)) for folder in folders]


def report(found: Sequence[Provision], *, fetched: bool) -> dict[str, Any]:
    """The same for a program; `fetched`: what was missing is here now."""
    return {
        "missing_bytes": 0 if fetched else sum(one.missing_bytes for one in found),
        "bytes": sum(one.checkpoint.n_bytes for one in found),
        "fetched_bytes": sum(one.missing_bytes for one in found) if fetched else 0,
        "free_bytes": {str(at): free for at, free in _rooms(found)},
        "checkpoints": [
            {"repository": one.checkpoint.repository, **one.checkpoint.record()}
            | {"folder": str(one.checkpoint.folder), "missing": dict(one.missing)}
            for one in found
        ],
    }
