"""The page of a made-up run: valid, self-contained, complete, and honest about what is missing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import hybridlab
from hybridlab import catalog
from hybridlab.errors import RunFolderError
from hybridlab.reporting import figures, labels
from hybridlab.reporting.html import build_report
from hybridlab.reporting.html.claims import SHOWN_AT
from hybridlab.reporting.html.figures import pictures
from hybridlab.reporting.html.files import files_table
from hybridlab.reporting.html.report import QUESTIONS, SECTIONS
from hybridlab.reporting.html.tables import strategies_block
from hybridlab.reporting.html.view_model import Run
from hybridlab.reporting.rows import RACE
from hybridlab.results.manifest import write_json
from hybridlab.results.reader import run_table
from hybridlab.results.writer import TableWriter
from tests.pages import Page, checked, load, with_pictures
from tests.synthetic import case, memory, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return checked(run)


@pytest.fixture(scope="module")
def html(run: Path, page: Page) -> str:
    """The same page as it stands in its file."""
    return (run / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=[1, 5])
def incomplete(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = write_run(tmp_path_factory.mktemp("incomplete"), notebooks=request.param)
    return checked(with_pictures(run))


def test_incomplete_runs_are_reported_too(incomplete: Page) -> None:
    assert "What this run lacks" in incomplete.text
    assert "07_verdict did not finish" in incomplete.text
    assert "not run" in incomplete.text


def test_nothing_comes_from_a_network(html: str) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert len(html) < 5_000_000


def test_only_its_own_scripts_may_run(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    own = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert own is not None
    digest = base64.b64encode(hashlib.sha256(own[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy[1]
    assert "unsafe-eval" not in policy[1]


def test_tables_can_be_saved_from_the_page_itself(run: Path, page: Page) -> None:
    saved = {
        attrs["download"]: attrs["href"]
        for tag, attrs in page.tags
        if tag == "a" and "download" in attrs
    }
    uri = saved["synthetic-run-trials.csv.gz"]
    assert uri is not None
    head, content = uri.split(",", 1)
    assert head == "data:application/gzip;base64"
    rows = pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(content))))
    trials = run_table(run, "trials")
    assert len(rows) == len(trials)
    assert set(rows.columns) >= set(trials.columns)
    assert rows["latency_s"].sum() == pytest.approx(trials["latency_s"].sum())


def test_tables_beyond_the_budget_stay_beside_the_page(run: Path) -> None:
    rows = {row[0]: " ".join(row[1:]) for row in files_table(Run(run), budget=6_000).rows}
    assert "too large" in rows["samples"]
    assert "samples.parquet" in rows["samples"] and "href" not in rows["samples"]
    assert 'download="synthetic-run-claims.csv.gz"' in rows["claims"]


def test_evidence_leads_to_the_rows_of_its_cases(page: Page) -> None:
    links = page.attributes("a", "href")
    assert "#case-02-beside-medium" in links
    assert {"id": "case-02-beside-medium"} in [attrs for tag, attrs in page.tags if tag == "tr"]


def test_every_picture_is_inside_and_has_words(page: Page) -> None:
    sources, alts = page.attributes("img", "src"), page.attributes("img", "alt")
    assert len(sources) == len(alts) == 3  # the run had no figures: the key plots were drawn
    assert all(source.startswith("data:image/") for source in sources)
    assert all(len(alt) > 15 for alt in alts)
    assert "fits beside Voxtral-Mini-3B with" in alts[0]
    assert "fits with" in alts[1]


def test_what_a_reader_looks_for_is_shown(page: Page) -> None:
    for shown in (
        # the answer, the recommendation, its goals and how firm it is
        "Whisper medium fits beside Voxtral with 2.8 GiB to spare",
        "lowest median latency with equal texts",
        "parallel/threads, 1.05 s; then sequential/plain, 1.21 s",
        "another way wins in 3 % of draws of the same trials",
        "It had to keep",
        # options
        *("Predicted (GiB)", "10.40", "14.06", "12.80 GiB on"),
        # statuses with their reasons, verdicts
        *("completed", "skipped", "oom", "needs 16.4 GiB at its highest", "CUDA out of memory"),
        *("supported", "refuted", "inconclusive", "not testable here"),
        *("medium fits <here>: 13.2 GB", "“says medium-fits <there>” (line 15)"),
        # what was asked, where, and how it was measured
        *("llm_weights", "random", "Processor", "Measurement version", "cuda:0"),
        *("none below 5 cases", "each in a fresh process"),
    ):
        assert shown in page.text, shown


def test_every_section_is_in_the_page_under_its_question(page: Page) -> None:
    """In the order of the registry; what has nothing to show is left out."""
    folded = [attrs["id"] for tag, attrs in page.tags if tag == "details" and "id" in attrs]
    assert folded == ["ask", *(question.name for question in QUESTIONS)]
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "h3" and "id" in attrs]
    left_out = {"missing", "figures-limits", "figures-own"}
    assert ids == [section.name for section in SECTIONS if section.name not in left_out]
    assert not any("open" in attrs for tag, attrs in page.tags if tag == "details")


def test_strategies_stand_against_the_control_of_their_own_notebook(page: Page) -> None:
    row = page.text.split("swapping/reload-cached", 1)[1][:160]
    assert "2.38" in row
    assert "× 1.95" in row or "× 1.96" in row
    assert "equal" in row


def test_what_http_and_a_gateway_add_stands_under_the_strategies(
    run: Path, tmp_path: Path, page: Page
) -> None:
    served = shutil.copytree(run, tmp_path / "served")
    arm = {"strategy": "parallel", "variant": "separate-containers"}
    held = {"servers": 2, "server_overhead_bytes": 900 * 2**20, "gateway_bytes": 50 * 2**20}
    spent = {"latency_s": 0.2, "http_overhead_s": 0.03, "gateway_s": 0.01}
    row = case("served", RACE, **arm)
    rows = {"cases": row | held, "trials": row | spent | {"is_first_request": False}}
    for table, own in rows.items():
        with (served / "parts" / "05_parallel" / f"{table}.jsonl").open("a") as file:
            file.write(json.dumps(own) + "\n")
    _, heading, shown = strategies_block(Run(served))
    names = [name for name, _ in shown.headings]
    found = dict(zip(names, shown.rows[0], strict=True))
    expected = {"Strategy": "parallel/separate-containers", "Of latency": "20.0 %"}
    expected |= {"Gateway (ms)": "10", "HTTP (ms)": "30", "Gateway (MiB)": "50"}
    assert expected.items() <= found.items()
    assert "Over HTTP" in heading and "Over HTTP" not in page.text


def test_no_link_leads_out_of_the_page(page: Page) -> None:
    """Forwarded alone, nothing is dead: what stays in the run's folder is named."""
    links = page.attributes("a", "href")
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert "notebooks/02_whisper_beside_voxtral.html" in page.text
    assert "cases.parquet" in page.text


def test_figures_of_the_run_are_used_and_named_beyond_the_budget(tmp_path: Path) -> None:
    folder = write_run(tmp_path, notebooks=3)
    cases = run_table(folder, "cases")
    figures.save(figures.three_numbers(cases), folder / "figures", "02-memory-three")
    run = Run(folder)
    assert pictures(run, budget=100) == []
    assert "figures/02-memory-three.png is too large for this page" in run.notes[0]
    own, drawn = pictures(Run(folder))
    assert own.source.startswith("data:image/")
    assert min(own.width, own.height) > 300
    assert drawn.name == "latency"  # of memory the run has a figure


def test_texts_are_escaped(tmp_path: Path) -> None:
    run = with_pictures(write_run(tmp_path, notebooks=1))
    (run / "verdict.json").write_text(json.dumps({"answer": "<script>alert(1)</script> & so"}))
    page = checked(run)
    assert "<script>alert(1)</script> & so" in page.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        build_report(tmp_path)


@pytest.mark.parametrize(
    ("audio", "llm_model", "told"),
    [("mine", "pocket", True), ("mine", "mini-3b", False), ("", "pocket", False)],
)
def test_other_audio_for_the_pocket_models_is_told_beside_the_answer(
    tmp_path: Path, audio: str, llm_model: str, told: bool
) -> None:
    run = with_pictures(write_run(tmp_path, notebooks=3))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    write_json(run / "manifest.json", {**manifest, "params": {"audio": audio}})
    (cases,) = (run / "parts").glob("02_*/cases.jsonl")
    rows = map(json.loads, cases.read_text(encoding="utf-8").splitlines())
    cases.write_text("".join(json.dumps({**row, "llm_model": llm_model}) + "\n" for row in rows))
    page = load(run)
    words = labels.capital(catalog.POCKET_WORDS)
    assert (words in page.text) == told
    assert not told or page.text.index(words) < page.text.index("Longest request")


def test_what_a_preset_can_tell_stands_in_its_report(tmp_path: Path) -> None:
    run = with_pictures(write_run(tmp_path, notebooks=1))
    assert "pocket Voxtral" not in load(run).text
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    write_json(run / "manifest.json", {**manifest, "preset": "own-audio"})
    assert "It cannot tell what a released Voxtral would say" in load(run).text


def test_a_simulated_card_beside_this_machines_run_answers_first(tmp_path: Path) -> None:
    run = with_pictures(write_run(tmp_path, notebooks=3))
    inner = run / "t4-simulated"
    common = {"run_id": "t4", "evidence": "simulated", "memory_limited": False}
    common["device"] = "simulated:t4"
    part = TableWriter(inner / "parts" / "02_whisper_beside_voxtral", common)
    part.folder.mkdir(parents=True)
    for size, gib in {"large-v3": 2.9, "base": 0.2}.items():
        row = case(size, "co_residency", asr_model=size, device="simulated:t4")
        part.append("cases", row | memory(gib))
    write_json(inner / "manifest.json", {"run_id": "t4"})
    (cases,) = (run / "parts").glob("02_*/cases.jsonl")
    rows = map(json.loads, cases.read_text(encoding="utf-8").splitlines())
    cases.write_text("".join(json.dumps({**row, "llm_model": "pocket"}) + "\n" for row in rows))
    page = load(run)
    finding = "On a simulated T4 Whisper large-v3 (transformers, float16) fits beside Voxtral"
    assert finding in page.text
    assert hybridlab.load_run(run).answer.startswith(finding)  # the last lines of `make demo`
    assert "What fits is simulated for the released models." in page.text
    assert page.attributes("img", "alt")[0].startswith(finding)


def test_the_figures_of_claims_are_saved_by_their_notebooks(project: Path) -> None:
    for _, _, names in SHOWN_AT.values():
        for name in names:
            number, _, figure = name.partition("-")
            if not number.isdigit():
                continue
            (book,) = (project / "notebooks").glob(f"{number}_*.ipynb")
            assert f'\\"{figure}\\"' in book.read_text(encoding="utf-8"), name
