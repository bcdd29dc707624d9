"""Which weights a run measures: fetched before its first case, pinned by commit, and kept in the
run folder, so that a notebook that joins the run or a resumed one measures the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hybridlab.errors import WeightsError
from hybridlab.models.base import ModelSpec
from hybridlab.models.checkpoint import (
    Checkpoint,
    is_commit,
    is_released,
    pinned,
    repository_of,
)
from hybridlab.models.fetch_progress import FetchProgress, Listener, line_printer
from hybridlab.models.provision import fetch
from hybridlab.results.manifest import write_json
from hybridlab.results.reader import read_object

#: In a run's folder: of each repository commit, files and bytes.
WEIGHTS_FILE = "weights.json"


def recorded(run_dir: Path) -> dict[str, str]:
    """The commit of each repository that the run in this folder measures."""
    held = read_object(run_dir / WEIGHTS_FILE)
    return {repository: str(one["commit"]) for repository, one in held.items()}


def provide(
    specs: Iterable[ModelSpec], run_dir: Path, *, listener: Listener | None = None
) -> list[Checkpoint]:
    """Fetch what these specs need, at the commits that this (perhaps future) run measures already.
    `WeightsError` where one cannot be had any more, or where a spec names another."""
    before, specs = recorded(run_dir), list(specs)
    for spec in specs:
        _check(spec, before, run_dir)
    try:
        return fetch([pinned(spec, before) for spec in specs], listener=listener)
    except WeightsError as error:
        if not before:
            raise
        raise WeightsError(
            f"{error} (the run in {run_dir} goes on with the commits of its {WEIGHTS_FILE}; to "
            "measure others choose another output folder)"
        ) from None


def _check(spec: ModelSpec, commits: Mapping[str, str], run_dir: Path) -> None:
    if not is_released(spec) or not is_commit(spec.revision):
        return
    repository = repository_of(spec)
    before = commits.get(repository, spec.revision)
    if before != spec.revision:
        raise WeightsError(
            f"the run in {run_dir} measured {repository} at commit {before[:12]}, and "
            f"{spec.revision[:12]} is asked for; choose another output folder, so that the two are "
            "not mixed"
        )


def keep(found: Iterable[Checkpoint], run_dir: Path) -> None:
    """Add these to what the run's folder says, if there are any."""
    held = {one.repository: one.record() for one in found}
    path = run_dir / WEIGHTS_FILE
    if held and (before := read_object(path)) != (now := {**before, **held}):
        write_json(path, now)


def fetch_printer(*, live: bool) -> Listener:
    """Where a download stands, under a notebook's cell: one line that is written anew where
    somebody looks on, else a line now and then."""
    from IPython import get_ipython

    if live and get_ipython() is not None:
        return _updated_line()
    return line_printer(print)  # the cell's output


def _updated_line() -> Listener:
    from IPython.display import display

    shown: list[Any] = []

    def listen(state: FetchProgress) -> None:
        words = {"text/plain": state.words()}
        if shown:
            shown[0].update(words, raw=True)
        else:
            shown.append(display(words, raw=True, display_id=True))

    return listen
