"""What every notebook must be, whoever wrote it: its skeleton, its parameters, no outputs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

from hybridlab.config.notebook_params import NotebookParams
from hybridlab.config.params import Params
from tools import repository

ORDER = ["title", "bootstrap", "parameters", "validate", "preflight", "method", "measure"]
#: Of the notebook that runs the others.
START_ORDER = ["title", "bootstrap", "parameters", "validate", "measure"]


def tagged(book: Any, tag: str) -> list[Any]:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def check_skeleton(book: Any, name: str, order: Sequence[str] = ORDER) -> None:
    nbformat.validate(book)
    tags = [tag for cell in book.cells for tag in cell.metadata.get("tags", [])]
    assert [tag for tag in tags if tag in ORDER] == list(order)
    assert tags[-1] == "close"
    assert name[:2] in book.cells[0].source.lower()
    assert (
        f"colab.research.google.com/github/{repository.named()}/blob/main/notebooks/{name}.ipynb"
        in (book.cells[0].source)
    )
    for cell in tagged(book, "interactive"):
        assert cell.source.startswith("if not params.headless:")


def check_no_outputs(book: Any) -> None:
    for cell in book.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def check_parameters(book: Any, model: type[NotebookParams]) -> None:
    """One literal a line, `# @param` behind it; its defaults are the model's, and what does not
    stand in the cell can be given there by name."""
    (cell,) = tagged(book, "parameters")
    title, *lines = [line for line in cell.source.splitlines() if line != "# fmt: off"]
    assert title == '# @title Parameters { display-mode: "form" }'
    assert all("# @param" in line for line in lines)
    found = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
    }
    assert {"preset", "overrides", "output_dir"} <= set(found)
    assert {"overrides": {}, **model().model_dump()} | found == {
        "overrides": {},
        **model().model_dump(),
    }


def check_no_definitions(book: Any) -> None:
    """Classes and functions live in the package."""
    for cell in book.cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
            assert not kinds & {ast.ClassDef, ast.FunctionDef, ast.Lambda}


def check_no_rows_shown(book: Any) -> None:
    """What a cell ends with is shown; rows as they are measured are no table."""
    for cell in book.cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            last = ast.parse(cell.source).body[-1]
            call = last.value if isinstance(last, ast.Expr) else None
            measured = isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".measure")
            assert not measured, ast.unparse(last)


def check(path: Path, model: type[Params]) -> None:
    """All of it."""
    book = nbformat.read(path, as_version=4)
    check_skeleton(book, path.stem)
    check_no_outputs(book)
    check_parameters(book, model)
    check_no_definitions(book)
    check_no_rows_shown(book)
