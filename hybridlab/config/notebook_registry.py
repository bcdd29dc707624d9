"""Which notebooks there are: the project's eight, and those that a reader has added beside them.

A notebook of a reader's own says by itself what its parameters are, in its validate cell:
`SequentialParams.named("my-experiment").from_namespace(globals())`. Nothing else registers it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hybridlab.config import params
from hybridlab.config.params import NOTEBOOKS, Params
from hybridlab.errors import ParameterError, RunFolderError

_NAMED = re.compile(r"^[^#\n]*\b(\w+)\.named\([\"']([^\"']+)[\"']\)", re.MULTILINE)


def notebooks_dir() -> Path:
    """`notebooks/` of the current folder, or of the checkout that this package runs from."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / "notebooks" / f"{next(iter(NOTEBOOKS))}.ipynb").is_file():
            return folder / "notebooks"
    raise RunFolderError("no notebooks/ here; run hybridlab from a checkout of the project")


def own_notebooks(folder: Path) -> dict[str, type[Params]]:
    """Parameters of the reader's own notebooks in this folder, by name; a notebook that declares
    none is left alone. `ParameterError` where one cannot be read or is called by another name."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        model = declared(path) if path.stem not in NOTEBOOKS else None
        if model is None:
            continue
        if model.notebook != path.stem:
            raise ParameterError(
                f"{path} calls itself {model.notebook!r}; write {path.stem!r} into its "
                f"{model.__name__}.named(...)"
            )
        found[path.stem] = model
    return found


def declared(path: Path) -> type[Params] | None:
    """The parameters that a notebook's code declares by `SomeParams.named("name")`."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParameterError(
            f"{path} is not a notebook ({type(error).__name__}); move it out of {path.parent}"
        ) from None
    for cell in cells:
        if cell["cell_type"] == "code":
            for kind, name in _NAMED.findall("".join(cell["source"])):
                model = getattr(params, kind, None)
                if isinstance(model, type) and issubclass(model, Params):
                    return model.named(name)
    return None


def cell_tagged(book: dict[str, Any], tag: str) -> dict[str, Any]:
    """The notebook's cell with this tag."""
    return next(cell for cell in book["cells"] if tag in cell["metadata"].get("tags", []))
