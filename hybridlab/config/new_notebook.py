"""A notebook and a preset of a reader's own, from one of the project's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridlab.config.notebook_registry import cell_tagged
from hybridlab.config.params import NOTEBOOKS, parameters_of
from hybridlab.config.preset_files import presets, read_yaml
from hybridlab.errors import ParameterError, RunFolderError

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST_NAME = 60
#: The preset whose values a new one begins with.
BASIS = "pocket"


def create(project: Path, name: str, *, source: str) -> tuple[Path, Path]:
    """Write `notebooks/<name>.ipynb` and `params/<name>.yaml` and return both. `source` is one of
    the project's notebooks. Nothing is overwritten: `RunFolderError`."""
    import yaml

    model = parameters_of(source)
    _check_name(name, project)
    notebook = project / "notebooks" / f"{name}.ipynb"
    preset = project / "params" / f"{name}.yaml"
    for path in (notebook, preset):
        if path.exists():
            raise RunFolderError(
                f"{path} exists already and is never overwritten; choose another name"
            )
    template = project / "notebooks" / f"{model.notebook}.ipynb"
    book = json.loads(template.read_text(encoding="utf-8"))
    values = read_yaml(project / "params" / f"{BASIS}.yaml")
    _rename(book, name, template.stem)
    _write(notebook, json.dumps(book, indent=1, ensure_ascii=False) + "\n")
    own = {n: v for n, v in values.items() if n in model.model_fields}
    rows = yaml.safe_dump(own, sort_keys=False, default_flow_style=None, width=100)
    _write(preset, f"# The pocket pair through {name}: hybridlab run params/{name}.yaml\n{rows}")
    return notebook, preset


def _check_name(name: str, project: Path) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ParameterError(
            f"{name!r} cannot name a notebook; use lower-case words joined by - or _, as "
            f"my-experiment, at most {LONGEST_NAME} characters"
        )
    if name in NOTEBOOKS or name in presets(project / "params"):
        raise ParameterError(f"{name!r} is taken by a notebook or preset; choose another one")


def _rename(book: dict[str, Any], name: str, source: str) -> None:
    """Title, badge and declaration become the new notebook's; the reader's own words are asked
    for where they belong."""
    title = f"# {source[:2]} · "
    _edit(
        cell_tagged(book, "title"),
        lambda text: re.sub(rf"^{title}.*", f"# {name}", text).replace(source, name),
    )
    kind = parameters_of(source).__name__
    _edit(
        cell_tagged(book, "validate"),
        lambda text: text.replace(
            f"{kind}.from_namespace(", f'{kind}.named("{name}").from_namespace('
        ),
    )
    _edit(
        cell_tagged(book, "method"),
        lambda text: (
            "## Your hypothesis\nWhat you expect, and what would refute it, goes here. The rest is "
            f"still that of `{source}`.\n\n{text}"
        ),
    )


def _edit(cell: dict[str, Any], change: Callable[[str], str]) -> None:
    """Change a cell's source, which files keep as one string or as a list of lines."""
    before = "".join(cell["source"])
    after = change(before)
    if after == before:
        raise ValueError(f"nothing to change in the cell {cell.get('id')}")
    cell["source"] = after.splitlines(keepends=True)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None
