"""A notebook in JupyterLab's own page: it runs to its end, its explorer follows its controls, and a
player plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLAYER = (
    "from ipywidgets import HTML\n"
    "from hybridlab.widgets.request_player import player_html\n"
    "HTML(player_html(session.clips[0].samples()))"
)
SAYS = "words => document.querySelector('.verdict')?.textContent.startsWith(words)"


def test_a_notebook_runs_from_first_cell_to_last_and_a_control_moves_the_picture(
    page: Any, jupyterlab: JupyterLab, screenshot: Callable[[Any, str], Path]
) -> None:
    path = jupyterlab.folder / "00_setup.ipynb"
    book = nbformat.read(path, as_version=4)
    (place,) = (i for i, cell in enumerate(book.cells) if "pair_explorer" in cell.source)
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(PLAYER))
    nbformat.write(book, path)
    jupyterlab.open(page, "00_setup")
    jupyterlab.run_all(page)
    jupyterlab.wait(page)
    screenshot(page, "jupyterlab-00")
    assert jupyterlab.errors(page) == []
    verdict = page.locator(".verdict")
    verdict.scroll_into_view_if_needed()
    assert verdict.inner_text().startswith("✓ fits by ")
    assert "run t4-simulated" in page.locator(".widget-html:has(.verdict)").inner_text()
    assert "Simulated" in page.locator(".widget-html:has(.verdict)").inner_text()
    page.get_by_label("margin (GB)", exact=True).fill("6")
    page.get_by_label("margin (GB)", exact=True).press("Enter")
    page.wait_for_selector("text=/fits by .* less than the margin/", timeout=10_000)
    page.get_by_label("attention", exact=True).select_option("expanded_kv")
    page.wait_for_selector("text=every figure is predicted", timeout=10_000)
    screenshot(page, "explorer-margin")
    page.get_by_label("Whisper", exact=True).select_option("large-v3")
    page.get_by_label("backend", exact=True).select_option("openai-whisper")
    page.wait_for_function(SAYS, arg="✗ lacks ", timeout=10_000)
    page.get_by_label("strategy", exact=True).select_option("swapping both")
    page.wait_for_function(SAYS, arg="✓ fits by ", timeout=10_000)
    screenshot(page, "explorer")
    page.get_by_label("Voxtral dtype", exact=True).select_option("bfloat16")
    page.wait_for_selector("text=NVIDIA T4 does not compute in bfloat16", timeout=10_000)
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(7.85, abs=0.1)
