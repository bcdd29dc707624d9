"""The notebooks here, a reader's own included: their skeleton, their parameters, no outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from hybridlab.config.notebook_registry import own_notebooks
from hybridlab.config.params import NOTEBOOKS
from hybridlab.config.start import StartParams
from tests import notebook_checks

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
ALL = {**NOTEBOOKS, **own_notebooks(FOLDER)}


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_there_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*ALL, "start"}


def test_start_is_a_notebook_that_no_run_takes_for_one_of_its_own() -> None:
    book = notebook("start")
    notebook_checks.check_skeleton(book, "start", notebook_checks.START_ORDER)
    notebook_checks.check_no_outputs(book)
    notebook_checks.check_no_definitions(book)
    notebook_checks.check_parameters(book, StartParams)
    assert "start" not in ALL


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


def test_kernels_and_runs_import_no_torch() -> None:
    """Models run in other processes: two seconds and a quarter of a GiB that no kernel needs."""
    cells = [cell for name in (*ALL, "start") for cell in notebook(name)["cells"]]
    lines = [line for c in cells if c["cell_type"] == "code" for line in c["source"].splitlines()]
    imports = {line for line in lines if line.startswith(("import ", "from "))}
    code = "\n".join(
        [
            *sorted(imports),
            "import sys",
            "import hybridlab.experiments.case_runner, hybridlab.experiments.notebook_runner",
            "import hybridlab.models.source",
            "assert 'torch' not in sys.modules",
        ]
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent)
