"""Runs that are incomplete, old or damaged: reported as far as they go, what is missing named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from hybridlab import MEASUREMENT_VERSION
from hybridlab.errors import RunFolderError
from hybridlab.reporting.html import answer, tables
from hybridlab.reporting.html.page import write_page
from hybridlab.reporting.html.page_one import NOT_RACED, page_one
from hybridlab.reporting.html.view_model import Run
from hybridlab.results.manifest import read_manifest, write_json
from tests.pages import checked, with_pictures
from tests.synthetic import write_run

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return with_pictures(write_run(tmp_path))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("unfinished"), notebooks=2)


@pytest.mark.parametrize(
    "verdict",
    ["{", "[]", "{}", '{"options": null, "recommendation": null}', '{"options": [1, {}]}'],
)
def test_odd_verdicts_do_no_harm(verdict: str, unfinished: Path) -> None:
    (unfinished / "verdict.json").write_text(verdict)
    run = Run(unfinished)
    assert answer.recommendation(run) == {}
    assert page_one(run).sharing.advice == f"not told by this run: {NOT_RACED}."
    assert tables.options_table(run).rows == []
    assert any(name in line for name in ("verdict", "notebooks") for line in answer.missing(run))


def test_what_is_damaged_is_left_out_and_named(run: Path) -> None:
    trials = run / "parts" / "04_sequential" / "trials.jsonl"
    lines = trials.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:40] + b"\n"
    lines[5] = b"\xff\xfe not text\n"
    trials.write_bytes(b"".join(lines) + b'{"case_id": "in fli')  # the last row was in flight
    for path in run.glob("parts/*/claims.jsonl"):
        path.unlink()
    (run / "parts" / "02_whisper_beside_voxtral" / "manifest.json").unlink()
    (run / "parts" / "04_sequential" / "manifest.json").write_text('{"status": "comple')
    (run / "figures" / "02-memory.png").write_bytes(b"\x89PNG\r\n")
    write_json(run / "manifest.json", {**read_manifest(run), "measurement_version": 2})
    page = checked(run)
    for words in (
        "parts/04_sequential/trials.jsonl: 2 of",
        "lines are damaged and were left out",
        "The parts hold no rows of claims: they were read from claims.parquet.",
        "parts/04_sequential/manifest.json is damaged: nothing was read from it.",
        "figures/02-memory.png is damaged and was left out.",
        f"measured by version 2 of the method, this program's is {MEASUREMENT_VERSION}",
        # what is whole is there
        "sequential/plain",
        "1.23 (1.23–1.24)",
        "refuted",
    ):
        assert words in page.text, words


def test_a_run_whose_batch_was_cut_off(run: Path) -> None:
    (run / "manifest.json").write_text('{"status": "comple')
    (run / "parts" / "02_whisper_beside_voxtral" / "manifest.json").unlink()
    text = checked(run).text
    assert "manifest.json is damaged: nothing was read from it." in text
    assert "crashed" in text and "no manifest" in text


def test_only_tables_some_of_them_damaged_and_lacking_columns(run: Path) -> None:
    shutil.rmtree(run / "parts")
    for path in [*run.glob("*.json"), *run.glob("*.parquet")]:
        if path.name not in ("cases.parquet", "spans.parquet"):
            path.unlink()
    spans, cases = run / "spans.parquet", run / "cases.parquet"
    spans.write_bytes(spans.read_bytes()[:200])
    pd.read_parquet(cases).drop(columns=["round", "margin_bytes", "load_peak_bytes"]).to_parquet(
        cases
    )
    page = checked(run)
    for text in (
        "spans.parquet is damaged (200 B): nothing was read from it.",
        "nothing says on which machine and with what it ran",
        "There is no verdict",
        "The table trials has no rows.",
        "Nothing is shown over time as far as it needs samples and spans.",
        "12.94",  # the cases are still there
    ):
        assert text in page.text, text


@pytest.mark.parametrize("name", ["full-cpu", "soak"])
def test_published_runs_of_older_methods(tmp_path: Path, name: str) -> None:
    run = tmp_path / name
    shutil.copytree(PROJECT / "outputs" / "reference" / name, run)
    text = checked(run).text
    assert "What this run lacks" in text
    assert "of the method, this program's is" in text


def test_a_read_only_folder_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "index.tmp").mkdir()  # stands in the way of the page
    empty = {"sections": [], "count": 0, "answer": ""}
    with pytest.raises(RunFolderError, match="cannot write"):
        write_page(tmp_path / "index.html", "comparison.html.j2", **empty)
