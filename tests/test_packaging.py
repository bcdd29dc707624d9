from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version


@pytest.fixture
def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9_.-]+", item) for item in requirements)
    return {match.group().lower().replace("_", "-") for match in found if match}


def pins(project: Path) -> dict[str, str]:
    lines = (project / "constraints.txt").read_text().splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in rows}


def test_constraints_pin_everything_that_the_checks_install(
    project: Path, pyproject: dict[str, Any]
) -> None:
    extras = pyproject["optional-dependencies"]
    wanted = names([*pyproject["dependencies"], *extras["dev"], *extras["ct2"]])
    assert wanted <= set(pins(project))
    assert pins(project)["torch"] == "2.13.0"


def test_what_is_pinned_runs_on_the_oldest_python(project: Path, pyproject: dict[str, Any]) -> None:
    """Debian 12 has 3.11.2, which no patch release of ours may rule out."""
    least = Version(f"{pyproject['requires-python'].removeprefix('>=')}.0")
    pinned, checked, refused = pins(project), 0, []
    for found in distributions():
        name, version = found.metadata["Name"].lower().replace("_", "-"), found.version
        if pinned.get(name) == version.partition("+")[0]:  # not what was installed beside
            checked += 1
            wanted = SpecifierSet(found.metadata.get("Requires-Python") or "")
            refused += [] if wanted.contains(least) else [f"{name} {version}: {wanted}"]
    assert checked > 150 and refused == []


def test_the_parts_that_must_be_there_are_dependencies(pyproject: dict[str, Any]) -> None:
    required = {
        *("jupyterlab", "papermill", "torch", "transformers", "openai-whisper"),
        *("nvidia-ml-py", "seaborn", "ipywidgets"),
    }
    assert required <= names(pyproject["dependencies"])
    assert {"dev", "ct2", "quant"} <= set(pyproject["optional-dependencies"])


def test_nothing_is_pinned_that_colab_brings(pyproject: dict[str, Any]) -> None:
    plain = {item for item in pyproject["dependencies"] if re.fullmatch(r"[\w.-]+", item)}
    assert {"torch", "ipykernel"} <= plain
    assert "pyzmq" not in names(pyproject["dependencies"])


def test_presets_ship_with_the_package(project: Path) -> None:
    """A notebook on Colab has no checkout beside it: what `params/` holds is package data."""
    data = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = data["package-data"]["hybridlab"]
    shipped = {path.name for p in patterns for path in (project / "hybridlab").glob(p)}
    assert {path.name for path in (project / "params").glob("*.yaml")} <= shipped
    assert (project / "hybridlab" / "config" / "presets").is_symlink()  # one copy, not two


def test_environment_and_pyproject_agree(project: Path, pyproject: dict[str, Any]) -> None:
    environment = yaml.safe_load((project / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    least = tuple(int(n) for n in pyproject["requires-python"].removeprefix(">=").split("."))
    assert tuple(int(n) for n in python.removeprefix("python=").split(".")) >= least
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "--constraint constraints.txt" in pip
    (editable,) = (item for item in pip if item.startswith("--editable"))
    extras = re.search(r"\[(.+)\]", editable)
    assert extras is not None
    assert set(extras.group(1).split(",")) <= set(pyproject["optional-dependencies"])
    assert environment["channels"] == ["conda-forge"]


def test_version_is_said_once(pyproject: dict[str, Any]) -> None:
    import hybridlab

    assert hybridlab.__version__ == pyproject["version"]


def test_weights_are_small_and_safe(project: Path) -> None:
    folder = project / "hybridlab" / "models" / "pocket" / "weights"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in files) <= 25 * 10**6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
