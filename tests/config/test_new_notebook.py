"""`hybridlab new`: what it writes is a notebook like the others, and runs like them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hybridlab.cli.commands import app
from hybridlab.config.notebook_registry import notebooks_dir, own_notebooks
from hybridlab.config.params import NOTEBOOKS, SequentialParams
from hybridlab.config.preset_files import read_yaml
from hybridlab.errors import ParameterError
from hybridlab.experiments.notebook_runner import chosen
from hybridlab.results.manifest import read_manifest
from tests import notebook_checks
from tools import readme

NAME = "my-experiment"


@pytest.fixture
def checkout(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's notebooks and presets, with the tests inside it."""
    for folder in ("notebooks", "params"):
        shutil.copytree(project / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    assert notebooks_dir() == tmp_path / "notebooks"
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize("source", NOTEBOOKS)
def test_a_new_notebook_passes_every_check(checkout: Path, source: str) -> None:
    code, text = run("new", NAME, "--from", source)
    assert code == 0, text
    assert f"hybridlab run params/{NAME}.yaml" in text
    model = own_notebooks(checkout / "notebooks")[NAME]
    assert issubclass(model, NOTEBOOKS[source]) and model.notebook == NAME
    notebook_checks.check(checkout / "notebooks" / f"{NAME}.ipynb", model)
    model.from_mapping(read_yaml(checkout / "params" / f"{NAME}.yaml"))
    title = json.loads((checkout / "notebooks" / f"{NAME}.ipynb").read_text())["cells"][0]
    assert source not in "".join(title["source"])


def test_a_new_preset_runs_its_own_notebook_and_no_other(checkout: Path) -> None:
    run("new", NAME)
    assert [model.notebook for model in chosen(None, NAME)] == [NAME]
    assert [model.notebook for model in chosen(None, "pocket")] == list(NOTEBOOKS)
    assert [model.notebook for model in chosen([NAME, "07"], "pocket")] == [NAME, "07_verdict"]
    with pytest.raises(ParameterError, match="did you mean 'my-experiment'"):
        chosen(["my-experimen"], "pocket")
    assert NAME not in readme.presets_table(checkout)  # the README speaks of the project's own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("My Experiment",), "cannot name a notebook"),
        (("../escape",), "cannot name a notebook"),
        (("08_eight",), "cannot name a notebook"),
        (("a" * 61,), "at most 60 characters"),
        (("pocket",), "taken by a notebook or preset"),
        ((NAME, "--from", "09"), "unknown notebook '09'"),
    ],
)
def test_bad_names_are_one_line(checkout: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(checkout.rglob("*"))
    code, text = run("new", *arguments)
    assert code == 2 and message in text
    assert len(text.strip().splitlines()) == 1
    assert sorted(checkout.rglob("*")) == before


def test_nothing_is_overwritten(checkout: Path) -> None:
    mine = checkout / "notebooks" / f"{NAME}.ipynb"
    mine.write_text("precious")
    code, text = run("new", NAME)
    assert code == 2 and "never overwritten" in text
    assert mine.read_text() == "precious"
    assert not (checkout / "params" / f"{NAME}.yaml").exists()


def test_other_notebooks_in_the_folder_are_left_alone_or_named(checkout: Path) -> None:
    folder = checkout / "notebooks"
    scratch = {"cells": [{"cell_type": "code", "metadata": {}, "source": "%time 1 + 1"}]}
    (folder / "Untitled.ipynb").write_text(json.dumps(scratch))
    assert own_notebooks(folder) == {}
    run("new", NAME)
    (folder / f"{NAME}.ipynb").rename(folder / "renamed.ipynb")
    with pytest.raises(ParameterError, match="calls itself 'my-experiment'; write 'renamed'"):
        own_notebooks(folder)
    (folder / "renamed.ipynb").write_text("no notebook")
    with pytest.raises(ParameterError, match="is not a notebook"):
        own_notebooks(folder)


def test_named_parameters_are_the_same_but_for_the_notebook() -> None:
    named = SequentialParams.named(NAME)
    assert named.notebook == NAME and SequentialParams.notebook == "04_sequential"
    assert named().model_dump() == SequentialParams().model_dump()


@pytest.mark.slow
@pytest.mark.usefixtures("case_server")
def test_a_new_notebook_runs_by_its_preset(checkout: Path) -> None:
    run("new", NAME, "--from", "01")
    small = {"trials": "1", "warmup": "0", "max_other_cpu_share": "1.0"}
    options = [text for name, value in small.items() for text in ("-p", f"{name}={value}")]
    folder = checkout / "run"
    code, text = run("run", f"params/{NAME}.yaml", *options, "--output", str(folder), "--json")
    assert code == 0, text
    found = json.loads(text[text.index("{") :])
    assert found["status"] == "completed" and list(found["notebooks"]) == [NAME]
    assert Path(found["report"]).is_file()
    part = read_manifest(folder / "parts" / NAME)
    assert part["status"] == "completed" and part["params"]["trials"] == 1
    assert (folder / "notebooks" / f"{NAME}.html").is_file()
