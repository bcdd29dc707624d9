"""The live view in JupyterLab: it moves while a case runs, and an interrupt stops the case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from hybridlab.processes.fork_server import STOPPED
from hybridlab.results.manifest import read_manifest
from hybridlab.results.reader import read_rows
from tests.browser.conftest import JupyterLab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WAIT_MS = 60_000
#: The first case would take minutes, the others take a second.
VALUES: dict[str, Any] = {
    "trials": 400,
    "max_new_tokens": 8,
    "warmup": 0,
    "rounds": 1,
    "max_other_cpu_share": 1.0,
    "solo_variants": [],
    "sequential_variants": ["plain"],
}


def prepared(session: JupyterLab, name: str, values: dict[str, Any]) -> None:
    """A copy of 04 whose parameter cell gives these values beside its own."""
    book = nbformat.read(session.folder / "04_sequential.ipynb", as_version=4)
    (cell,) = (c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += f"\noverrides = {values!r}"
    nbformat.write(book, session.folder / f"{name}.ipynb")


PICTURE = '[aria-label^="memory by owner"]'
CHANGED = "([picture, seen]) => document.querySelector(picture)?.innerHTML !== seen"


def test_a_case_is_seen_at_work_and_stopped(
    page: Any, jupyterlab: JupyterLab, screenshot: Callable[[Any, str], Path]
) -> None:
    run = jupyterlab.folder.parent / "stopped"
    prepared(jupyterlab, "stopped", {**VALUES, "output_dir": str(run)})
    jupyterlab.open(page, "stopped")
    page.set_default_timeout(WAIT_MS)
    jupyterlab.run_all(page)
    hint = page.locator("text=stops this case")
    hint.scroll_into_view_if_needed()  # JupyterLab renders what is in view
    page.wait_for_selector("text=/trial \\d+, clip/")
    page.wait_for_selector("text=/(asr|llm) (encode|prefill|decode)/")
    page.wait_for_function(CHANGED, arg=[PICTURE, page.inner_html(PICTURE)])
    hint.scroll_into_view_if_needed()
    screenshot(page, "live-at-work")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel'); }")
    jupyterlab.wait(page, seconds=WAIT_MS / 1000)
    ended = page.locator("text=live view, ended")
    ended.scroll_into_view_if_needed()
    screenshot(page, "live-stopped")
    assert page.query_selector(PICTURE) is not None  # it stays
    assert hint.count() == 0
    assert jupyterlab.errors(page) == []
    part = run / "parts" / "04_sequential"
    (row,) = read_rows(part / "cases.jsonl")
    assert (row["status"], row["reason"]) == ("skipped", STOPPED)
    assert read_rows(part / "trials.jsonl") == []
    assert STOPPED in read_manifest(part)["reason"]
