"""Notebooks as a reader runs them, one after the other in one folder, and the one that runs them
all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from hybridlab.api import load_run
from hybridlab.results.manifest import read_manifest

pytestmark = pytest.mark.slow

SMALL = {
    "trials": 2,
    "rounds": 1,
    "warmup": 0,
    "max_new_tokens": 16,
    "max_other_cpu_share": 1.0,  # whoever works on this machine during the tests
    "sequential_variants": ["plain"],
}


def executed(project: Path, folder: Path, name: str, *lines: str) -> Any:
    """The notebook after "Run all" in this folder, with these lines in its parameter cell."""
    book = nbformat.read(project / "notebooks" / f"{name}.ipynb", as_version=4)
    (cell,) = (c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = "\n".join([cell.source, *lines])
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()
    return book


def shown(book: Any) -> str:
    """All that the cells show as HTML or Markdown."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    return "\n".join(part.get("text/html", part.get("text/markdown", "")) for part in data)


def printed(book: Any) -> str:
    """All that the cells print."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_the_verdict_sees_what_another_live_notebook_measured(
    project: Path, tmp_path: Path
) -> None:
    sequential = executed(project, tmp_path, "04_sequential", f"overrides = {SMALL!r}")
    (run,) = (tmp_path / "outputs").iterdir()
    assert run.name.startswith("live-")
    assert f'href="outputs/{run.name}/index.html"' in shown(sequential)
    verdict = executed(project, tmp_path, "07_verdict")
    assert list((tmp_path / "outputs").iterdir()) == [run]
    assert "sequential/plain" in shown(verdict)
    assert "It holds 04_sequential, 07_verdict." in shown(verdict)
    assert load_run(run).status == "completed"
    assert set(load_run(run).notebooks) == {"04_sequential", "07_verdict"}
    page = (run / "index.html").read_text()
    assert "sequential/plain" in page and "Recommendation" in page


def test_run_again_in_a_fresh_kernel_or_by_papermill_nothing_is_measured_twice(
    project: Path, tmp_path: Path
) -> None:
    import papermill

    lines = [f"overrides = {SMALL!r}"]
    executed(project, tmp_path, "04_sequential", *lines)
    (run,) = (tmp_path / "outputs").iterdir()
    rows = run / "parts" / "04_sequential"
    before = {path.name: path.read_bytes() for path in rows.glob("*.jsonl")}
    again = executed(project, tmp_path, "04_sequential", *lines)
    papermill.execute_notebook(
        str(project / "notebooks" / "04_sequential.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters={"overrides": SMALL},
        cwd=str(tmp_path),
        progress_bar=False,
    )
    assert list((tmp_path / "outputs").iterdir()) == [run]
    assert {path.name: path.read_bytes() for path in rows.glob("*.jsonl")} == before
    assert "measured before with these parameters" in printed(again)
    for book in (again, nbformat.read(tmp_path / "out.ipynb", as_version=4)):
        assert "sequential/plain costs" in shown(book)
    other = executed(project, tmp_path, "04_sequential", f"overrides = {SMALL | {'seed': 5}!r}")
    (moved,) = (run / "replaced").iterdir()
    assert str(moved) in printed(other)
    assert (moved / "cases.jsonl").read_bytes() == before["cases.jsonl"]
    assert load_run(run).status == "completed"


def test_start_measures_in_one_run_and_shows_its_report(project: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lines = [
        'notebooks = ["04"]',
        f"overrides = {SMALL!r}",
        'simulate = ""',
        f"output_dir = {str(run)!r}",
        "headless = True",
    ]
    book = executed(project, project, "start", *lines)
    assert load_run(run).status == "completed"
    assert list(load_run(run).notebooks) == ["04_sequential"]
    assert read_manifest(run)["preset"] == "pocket"
    html = shown(book)
    assert "1 of 1 notebook · done in" in html
    assert '<iframe title="report" srcdoc="&lt;!doctype html&gt;' in html.lower()
    assert "04_sequential</td>" in html
    cases = (run / "parts" / "04_sequential" / "cases.jsonl").read_bytes()
    again = shown(executed(project, project, "start", *lines))
    assert "1 of 1 notebook · 1 of them kept from before · done in" in again
    assert (run / "parts" / "04_sequential" / "cases.jsonl").read_bytes() == cases
