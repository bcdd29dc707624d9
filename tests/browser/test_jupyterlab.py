"""Notebooks in JupyterLab's own page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_notebook_runs_from_first_cell_to_last(
    page: Any, jupyterlab: JupyterLab, screenshot: Callable[[Any, str], Path]
) -> None:
    jupyterlab.open(page, "00_setup")
    jupyterlab.run_all(page)
    jupyterlab.wait(page)
    screenshot(page, "jupyterlab-00")
    assert jupyterlab.errors(page) == []
    assert page.query_selector(".widget-dropdown") is not None
