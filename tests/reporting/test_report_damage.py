"""Runs that are incomplete, old or damaged: reported as far as they go, what is missing named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from hybridlab import MEASUREMENT_VERSION
from hybridlab.errors import RunFolderError
from hybridlab.reporting.html import build_report
from hybridlab.results.manifest import read_manifest, write_json
from tests.pages import checked
from tests.synthetic import write_run

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with figures: nothing has to be drawn for its page."""
    return with_figures(write_run(tmp_path))


def with_figures(run: Path) -> Path:
    for name in ("02-memory", "07-latency"):
        Image.new("RGB", (40, 30), "white").save(run / "figures" / f"{name}.png")
    return run


@pytest.mark.parametrize(
    "verdict",
    ["{", "[]", "{}", '{"options": null, "recommendation": null}', '{"options": [1, {}]}'],
)
def test_odd_verdicts_do_no_harm(verdict: str, tmp_path: Path) -> None:
    run = with_figures(write_run(tmp_path, notebooks=2))
    (run / "verdict.json").write_text(verdict)
    checked(run)


def test_a_run_whose_notebook_was_cut_off(tmp_path: Path) -> None:
    run = with_figures(write_run(tmp_path, notebooks=3))
    (run / "manifest.json").unlink()
    (run / "parts" / "02_whisper_beside_voxtral" / "manifest.json").unlink()
    text = checked(run).text
    assert "crashed" in text and "no manifest" in text


def test_damaged_lines_are_left_out_and_counted(run: Path) -> None:
    path = run / "parts" / "04_sequential" / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:40] + b"\n"
    lines[5] = b"\xff\xfe not text\n"
    path.write_bytes(b"".join(lines) + b'{"case_id": "in fli')  # the last row was in flight
    page = checked(run)
    assert "parts/04_sequential/trials.jsonl: 2 of" in page.text
    assert "lines are damaged and were left out" in page.text
    assert "sequential/plain" in page.text


def test_tables_that_the_parts_lost_come_from_parquet(run: Path) -> None:
    for path in run.glob("parts/*/trials.jsonl"):
        path.unlink()
    page = checked(run)
    assert "The parts hold no rows of trials: they were read from trials.parquet." in page.text
    assert "1.23 (1.23–1.24)" in page.text


def test_a_truncated_parquet_is_named(run: Path) -> None:
    shutil.rmtree(run / "parts")
    path = run / "spans.parquet"
    path.write_bytes(path.read_bytes()[:200])
    page = checked(run)
    assert "spans.parquet is damaged (200 B): nothing was read from it." in page.text
    assert "Nothing is shown over time as far as it needs spans." in page.text
    assert "12.8" in page.text  # the cases are still there


def test_missing_tables_and_manifest(run: Path) -> None:
    shutil.rmtree(run / "parts")
    for path in [*run.glob("*.json"), *run.glob("*.parquet")]:
        if path.name != "cases.parquet":
            path.unlink()
    page = checked(run)
    for text in (
        "nothing says on which machine and with what it ran",
        "There is no verdict",
        "The table trials has no rows.",
        "Nothing is shown over time as far as it needs samples and spans.",
    ):
        assert text in page.text


@pytest.mark.parametrize("name", ["manifest.json", "parts/04_sequential/manifest.json"])
def test_a_damaged_manifest_is_named(run: Path, name: str) -> None:
    (run / name).write_text('{"status": "comple')
    assert f"{name} is damaged: nothing was read from it." in checked(run).text


def test_an_older_method_is_named(run: Path) -> None:
    manifest = read_manifest(run)
    write_json(run / "manifest.json", {**manifest, "measurement_version": 2})
    text = checked(run).text
    assert f"measured by version 2 of the method, this program's is {MEASUREMENT_VERSION}" in text


def test_a_figure_that_is_no_picture_is_named(run: Path) -> None:
    (run / "figures" / "02-memory.png").write_bytes(b"\x89PNG\r\n")
    assert "figures/02-memory.png is damaged and was left out." in checked(run).text


def test_columns_that_a_table_lacks_are_empty(run: Path) -> None:
    shutil.rmtree(run / "parts")
    path = run / "cases.parquet"
    pd.read_parquet(path).drop(columns=["round", "margin_bytes", "load_peak_bytes"]).to_parquet(
        path
    )
    checked(run)


@pytest.mark.parametrize("name", ["two-core-cpu", "full-cpu", "soak", "full-cpu-soak"])
def test_published_runs_of_older_methods(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    shutil.copytree(PROJECT / "outputs" / "reference" / name, run)
    text = checked(run).text
    assert "What this run lacks" in text
    assert "of the method, this program's is" in text


def test_a_read_only_folder_gets_one_line(run: Path) -> None:
    (run / "index.tmp").mkdir()  # stands in the way of the page
    with pytest.raises(RunFolderError, match="cannot write"):
        build_report(run)
