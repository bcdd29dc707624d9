"""The notebook to start with in JupyterLab: the explorer before anything is measured, a run with
its progress, its report in the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SMALL = {
    "trials": 1,
    "rounds": 1,
    "warmup": 0,
    "max_new_tokens": 16,
    "max_other_cpu_share": 1.0,
    "sequential_variants": ["plain"],
    "solo_variants": [],
}


def test_start_explores_measures_and_shows_its_report(
    page: Any, jupyterlab: JupyterLab, screenshot: Callable[[Any, str], Path]
) -> None:
    run = jupyterlab.folder.parent / "started"
    book = nbformat.read(jupyterlab.folder / "start.ipynb", as_version=4)
    (cell,) = (c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    given = {"notebooks": ["04"], "overrides": SMALL, "simulate": "", "output_dir": str(run)}
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
    nbformat.write(book, jupyterlab.folder / "start.ipynb")
    jupyterlab.open(page, "start")
    jupyterlab.run_all(page)
    verdict = page.locator(".verdict")
    verdict.scroll_into_view_if_needed()
    assert verdict.inner_text().startswith("✓ fits by ")
    screenshot(page, "start-explorer")
    page.wait_for_selector("text=/of 1 notebook · 04_sequential, \\d+ of \\d+ cases/")
    jupyterlab.wait(page)
    assert jupyterlab.errors(page) == []
    report = page.frame_locator('iframe[title="report"]')
    report.locator("h1").first.scroll_into_view_if_needed()
    assert "hybridlab report: started" in report.locator("body").inner_text()
    screenshot(page, "start-report")
    page.get_by_text(str(run / "index.html"), exact=True).scroll_into_view_if_needed()
