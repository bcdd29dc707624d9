"""The explorer and the player in JupyterLab's own page: a control is moved, the picture follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = (
    "from hybridlab.widgets import pair_explorer\npair_explorer()",
    "from ipywidgets import HTML\n"
    "from hybridlab.audio import load_clips\n"
    "from hybridlab.widgets.request_player import player_html\n"
    'HTML(player_html(load_clips("")[0].samples()))',
)


def test_a_control_moves_the_picture(
    page: Any, jupyterlab: JupyterLab, screenshot: Callable[[Any, str], Path]
) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(book, jupyterlab.folder / "explorer.ipynb")
    jupyterlab.open(page, "explorer")
    jupyterlab.run_all(page)
    page.wait_for_selector("audio", state="attached", timeout=60_000)
    assert jupyterlab.errors(page) == []
    verdict = page.locator(".verdict")
    assert verdict.inner_text() == "✓ fits"
    page.get_by_label("Whisper", exact=True).select_option("large-v3")
    page.get_by_label("backend", exact=True).select_option("openai-whisper")
    page.wait_for_function(_SAYS, arg="✗ does not fit", timeout=10_000)
    page.get_by_label("strategy", exact=True).select_option("swapping both")
    page.wait_for_function(_SAYS, arg="✓ fits", timeout=10_000)
    screenshot(page, "explorer")
    page.get_by_label("Voxtral dtype", exact=True).select_option("bfloat16")
    page.wait_for_selector("text=NVIDIA T4 does not compute in bfloat16", timeout=10_000)
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(7.85, abs=0.1)


_SAYS = "words => document.querySelector('.verdict')?.textContent === words"
