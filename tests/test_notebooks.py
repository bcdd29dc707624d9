"""The notebooks here, a reader's own included: their skeleton, their parameters, no outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from hybridlab.notebooks import own_notebooks
from hybridlab.params import NOTEBOOKS
from tests import notebook_checks

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
ALL = {**NOTEBOOKS, **own_notebooks(FOLDER)}


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_there_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_skeleton(name: str) -> None:
    notebook_checks.check_skeleton(notebook(name), name)


@pytest.mark.parametrize("name", ALL)
def test_no_outputs_are_committed(name: str) -> None:
    notebook_checks.check_no_outputs(notebook(name))


@pytest.mark.parametrize("name", ALL)
def test_parameter_cell_equals_the_model(name: str) -> None:
    notebook_checks.check_parameters(notebook(name), ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_classes_and_functions_live_in_the_package(name: str) -> None:
    notebook_checks.check_no_definitions(notebook(name))


@pytest.mark.parametrize("name", ALL)
def test_no_cell_shows_rows_as_they_were_measured(name: str) -> None:
    notebook_checks.check_no_rows_shown(notebook(name))
