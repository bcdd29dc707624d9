from __future__ import annotations

from pathlib import Path

from tools import columns
from tools.readme import render


def test_generated_tables_are_up_to_date(project: Path) -> None:
    text = (project / "README.md").read_text(encoding="utf-8")
    assert render(text, project) == text, "run 'make readme'"


def test_the_page_of_columns_is_up_to_date() -> None:
    assert columns.PAGE.read_text(encoding="utf-8") == columns.page(), "run 'make readme'"
