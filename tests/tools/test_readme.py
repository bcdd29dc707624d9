from __future__ import annotations

from pathlib import Path

from tools import columns
from tools.readme import PAGES, SECTIONS, render, sections_of


def test_generated_tables_are_up_to_date(project: Path) -> None:
    texts = [(project / name).read_text(encoding="utf-8") for name in PAGES]
    for text in texts:
        assert render(text, project) == text, "run 'make readme'"
    found = [name for text in texts for name in sections_of(text)]
    assert sorted(found) == sorted(SECTIONS)


def test_the_readme_can_be_read_at_once(project: Path) -> None:
    assert len((project / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_page_of_columns_is_up_to_date() -> None:
    assert columns.PAGE.read_text(encoding="utf-8") == columns.page(), "run 'make readme'"
