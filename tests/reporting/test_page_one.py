"""Page one of the report: the answer, what limits it, and what is no answer."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from hybridlab import catalog
from hybridlab.analysis.recommendation import recommend
from hybridlab.analysis.which_fits import which_fits
from hybridlab.catalog.strategies import StrategyFacts
from hybridlab.reporting import figures, fit_words, key_findings
from hybridlab.reporting.html import build_report
from hybridlab.reporting.html.page_one import NOT_RACED, page_one
from hybridlab.reporting.html.tables import strategies_table
from hybridlab.reporting.html.view_model import Run
from hybridlab.reporting.rows import RACE
from hybridlab.results.manifest import read_manifest, write_json
from hybridlab.results.reader import run_table
from tests.pages import Page, load, with_pictures
from tests.synthetic import change_cases as change
from tests.synthetic import write_run

KEPT = [("sequential", "plain"), (None, None)]
DISTURBED = {"status": "invalid", "other_processes_cpu_share": 0.75}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return with_pictures(write_run(tmp_path))


@pytest.fixture
def disturbed(run: Path) -> Path:
    """Other programs were at work in every case of the races."""
    return change(run, RACE, DISTURBED)


def first_page(folder: Path) -> Page:
    html = build_report(folder).read_text(encoding="utf-8")
    page = html[html.index('<section class="one"') : html.index('<section class="behind"')]
    assert len(page) < 1_500_000
    return Page(page)


def test_it_says_what_fits_how_to_share_and_what_to_type(run: Path) -> None:
    manifest = read_manifest(run)
    manifest["machine"] |= {"gpu": "Tesla T4"}
    change(run, "co_residency", {"capacity_bytes": 15_633_678_336, "llm_dtype": "float16"})
    write_json(run / "manifest.json", manifest)
    text = first_page(run).text
    for words in (
        "On this T4 Whisper turbo (transformers, float16) fits beside Voxtral-Mini-3B with",
        "Longest request",
        "240 s of audio",
        "a longer audio",
        "How to share it: Keep both loaded and let them work at the same time, in two threads of "
        "one process (parallel/threads).",
        "A request takes 0.86 (95 % interval 0.86 to 0.86) times as long as where they take turns "
        "(sequential/plain); n = 5 cases, measured with",
        "Bytes of 5 pairs measured on the device itself",
        "predicted by formulas, nothing was run",
        "What released models say, and how many words they get wrong.",
        "hybridlab serve --llm-model mini-3b --llm-dtype float16 --asr-model turbo",
    ):
        assert words in text, words
    assert "invalid" not in text and "toy" not in text


def test_the_sentence_the_numbers_and_the_figure_say_the_same(project: Path) -> None:
    folder = project / "outputs" / "reference" / "t4-simulated"
    found = which_fits(run_table(folder, "cases"))
    said = fit_words.headline(found)
    assert said.startswith("On a simulated T4 Whisper large-v3 (transformers, float16) fits beside")
    assert figures.which_fits(run_table(folder, "cases")).get_suptitle().replace("\n", " ") == said
    one = page_one(Run(folder))
    assert (one.sentence, one.picture.alt) == (f"{said}.", said)
    assert one.numbers[0][:2] == ("What fits", "large-v3")
    # README's first figure is drawn from the published tables
    with Image.open(folder / "02-which-fits.png") as image:
        assert image.info["Title"] == said
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert f"![{said}](outputs/reference/t4-simulated/02-which-fits.png)" in readme


def test_a_toy_is_no_answer(run: Path) -> None:
    change(run, "co_residency", {"llm_model": "pocket"})
    one = page_one(Run(run))
    assert one.cautions[0].startswith(
        "What fits is predicted for the released models. How to share"
    )
    assert one.sentence.startswith("On a T4 Whisper large-v3")
    assert "is predicted to fit" in one.sentence
    assert "nothing ran on one" in one.cannot[0]


def test_missing_notebooks_are_named_beside_the_answer(tmp_path: Path) -> None:
    text = first_page(with_pictures(write_run(tmp_path, notebooks=3))).text
    missing = "This run is a part of the suite; notebooks without a result: 03_"
    assert text.index("GiB to spare") < text.index(missing) < text.index("What fits")
    assert f"How to share it: not told by this run: {NOT_RACED}." in text
    assert "Race the ways to share: hybridlab run pocket --only 04,05,06" in text
    assert "How the two should share the device." in text


# ------------------------------------------------------------------------------ invalid, too few

WORDS = "45 of 45 cases invalid: other programs used up to 75 % of the CPU"


def test_invalid_cases_stand_beside_the_answer_and_in_its_place(disturbed: Path) -> None:
    one = page_one(Run(disturbed))
    counts = f"{WORDS}; close them and repeat. Their bytes and texts count, their times do not."
    assert one.cautions == [counts]
    assert one.sharing.advice == f"not told by this run: {WORDS}."
    assert one.sharing.step is None  # the steps below repeat what is invalid
    assert one.steps[0][1].endswith("synthetic-run --resume")


def test_no_time_of_an_invalid_case_is_on_the_page(disturbed: Path) -> None:
    run = Run(disturbed)
    told = strategies_table(run)
    names = [name for name, _ in told.headings]
    assert "Median (s)" not in names and "Requests/s" not in names
    assert "Peak (GiB)" in names and "WER" in names  # bytes and texts count
    assert {str(row[names.index("N" if "N" in names else "n")]) for row in told.rows} == {"0"}
    # what is saved from the page is what was taken
    assert run.tables["trials"]["latency_s"].notna().any()
    assert load(disturbed)


@pytest.mark.parametrize("name", ["latency", "latency_ecdf", "throughput", "pareto"])
def test_titles_of_times_say_that_cases_are_invalid(run: Path, name: str) -> None:
    def words() -> str:
        cases, trials = (run_table(run, table) for table in ("cases", "trials"))
        asked = (trials, cases) if name.startswith("latency") else (cases, trials)
        figure = getattr(figures, name)(*asked)
        return " ".join(" ".join(text.get_text() for text in figure.texts).split())

    assert "invalid" not in words()
    change(run, RACE, DISTURBED, every=5)
    assert "9 of 45 cases invalid: other programs used up to 75 % of the CPU" in words()
    change(run, RACE, DISTURBED)
    assert words() == f"No times: {WORDS}."


def test_the_verdict_says_so_too(disturbed: Path) -> None:
    from hybridlab.analysis.verdict import answer_sentence

    cases = run_table(disturbed, "cases")
    assert WORDS in answer_sentence(cases, None, device="cuda:0")


def test_too_few_rounds_are_no_finding(run: Path) -> None:
    for path in run.glob("parts/*/cases.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if row["experiment"] != RACE or row["round"] < 2]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    one = page_one(Run(run))
    assert one.sharing.advice.startswith("too few rounds to tell; so far: Keep both loaded")
    cases, trials = run_table(run, "cases"), run_table(run, "trials")
    title = figures.latency(trials, cases).get_suptitle()
    assert "too few rounds to tell" in title.replace("\n", " ")
    ticks = figures.latency(trials, cases).axes[0].get_yticklabels()
    assert {label.get_fontweight() for label in ticks} == {"normal"}


def test_one_way_alone_is_no_race(run: Path) -> None:
    for path in run.glob("parts/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if (row.get("strategy"), row.get("variant")) in KEPT]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    (run / "cases.parquet").unlink()
    told = page_one(Run(run)).sharing
    assert told.advice.startswith("not told by this run, which measured one way alone: Keep both")
    assert told.step is not None and told.step[1].endswith("--only 04,05,06")


@pytest.mark.parametrize("facts", catalog.STRATEGIES.values(), ids=catalog.STRATEGIES)
def test_every_way_has_plain_words(facts: StrategyFacts) -> None:
    assert facts.advice
    manners = [variant.manner for variant in facts]
    assert manners[1:] == list(dict.fromkeys(filter(None, manners[1:])))


def test_one_ratio_has_one_estimate(run: Path) -> None:
    """In the table, on page one, in the notebook's own words and in the recommendation."""
    read = Run(run)
    table = strategies_table(read)
    column = [name for name, _ in table.headings].index("Against sequential/plain")
    (shown,) = [row[column] for row in table.rows if row[0] == "parallel/threads"]
    cases, trials = run_table(run, "cases"), run_table(run, "trials")
    chosen = recommend(cases, trials)
    assert chosen is not None
    assert f"takes {chosen.relative:.2f} (95 %" in page_one(read).sharing.evidence
    ratio = f"{chosen.relative:.2f} ["
    assert str(shown).startswith(f"× {ratio}")
    own = [rows[rows["notebook"] == "05_parallel"] for rows in (cases, trials)]
    told = key_findings.strategy_comparison(*own)
    assert any(f"parallel/threads {ratio}" in sentence for sentence in told)


def test_stopped_sizes_are_not_failed_ones(run: Path) -> None:
    change(
        run,
        "request_scaling",
        {"status": "skipped", "reason": "stopped by the reader", "request_peak_bytes": None},
    )
    cases = run_table(run, "cases")
    title = figures.request_scaling(cases).get_suptitle().replace("\n", " ")
    assert title == "No audio was served, no batch was served; of 6 sizes 6 stopped"


def test_bytes_of_an_invalid_case_stay(run: Path) -> None:
    change(run, "request_scaling", DISTURBED)
    rows = run_table(run, "cases")
    assert isinstance(rows, pd.DataFrame)
    title = figures.request_scaling(rows).get_suptitle()
    assert "480 s of audio peaks at" in title.replace("\n", " ")
