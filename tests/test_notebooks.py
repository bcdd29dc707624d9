"""The committed notebooks: their skeleton, their parameters, no outputs."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest

from hybridlab.params import NOTEBOOKS

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
ORDER = ["title", "bootstrap", "parameters", "validate", "preflight", "method", "measure"]


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tagged(book: Any, tag: str) -> list[Any]:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", [])]


def test_every_notebook_is_there_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_skeleton(name: str) -> None:
    book = notebook(name)
    nbformat.validate(book)
    tags = [tag for cell in book.cells for tag in cell.metadata.get("tags", [])]
    assert [tag for tag in tags if tag in ORDER] == ORDER
    assert tags[-1] == "close"
    assert name[:2] in book.cells[0].source
    assert "colab.research.google.com" in book.cells[0].source
    for cell in tagged(book, "interactive"):
        assert cell.source.startswith("if not params.headless:")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_outputs_are_committed(name: str) -> None:
    for cell in notebook(name).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameter_cell_equals_the_model(name: str) -> None:
    """One literal a line, `# @param` behind it; names and defaults are those of the model."""
    (cell,) = tagged(notebook(name), "parameters")
    assert all("# @param" in line for line in cell.source.splitlines())
    found = {
        node.targets[0].id: ast.literal_eval(node.value)  # type: ignore[attr-defined]
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
    }
    assert found == NOTEBOOKS[name]().model_dump()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_classes_and_functions_live_in_the_package(name: str) -> None:
    for cell in notebook(name).cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
            assert not kinds & {ast.ClassDef, ast.FunctionDef, ast.Lambda}
