from __future__ import annotations

import re
import shutil
from pathlib import Path

from tools import repository


def test_readme_and_notebooks_name_the_repository_of_pyproject(project: Path) -> None:
    assert repository.written(project) == repository.named(project)
    for page in repository.pages(project):
        assert repository.named(project) in page.read_text(encoding="utf-8"), page.name


def test_a_fork_changes_one_line(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "notebooks", tmp_path / "notebooks")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(project / name, tmp_path)
    config = (tmp_path / "pyproject.toml").read_text()
    own = repository.named(project)
    (tmp_path / "pyproject.toml").write_text(
        config.replace(f"github.com/{own}", "github.com/me/it")
    )
    repository.rename(tmp_path)
    for page in repository.pages(tmp_path):
        text = page.read_text(encoding="utf-8")
        assert re.search(rf"/{own}\b", text) is None
        assert "github.com/me/it" in text or "/github/me/it/" in text
