"""Where the project lies: `python -m tools.repository` writes what pyproject.toml says into the
README and the notebooks, so that a fork changes it in one place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
HOST = "https://github.com/"


def named(project: Path = PROJECT) -> str:
    """Owner and name, as pyproject.toml has them."""
    with open(project / "pyproject.toml", "rb") as file:
        url: str = tomllib.load(file)["project"]["urls"]["Repository"]
    return url.removeprefix(HOST)


def pages(project: Path = PROJECT) -> list[Path]:
    """What names the repository to readers."""
    return [project / "README.md", *sorted((project / "notebooks").glob("*.ipynb"))]


def written(project: Path = PROJECT) -> str:
    """Owner and name as the README's first command has them."""
    text = (project / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^git clone {HOST}(\S+)", text, flags=re.MULTILINE)
    assert found is not None, "README.md has no git clone line"
    return found[1]


def rename(project: Path = PROJECT) -> None:
    """Write the present name where the former stands."""
    before, now = written(project), named(project)
    for page in pages(project):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(rf"(?<=/){re.escape(before)}\b", now, text), encoding="utf-8")


if __name__ == "__main__":
    rename()
