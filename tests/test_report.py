"""The page of a made-up run: valid, self-contained, complete, and honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hybridlab import plots, records
from hybridlab.errors import RunFolderError
from hybridlab.report import build_report
from hybridlab.report.model import as_bytes, as_seconds, words
from tests.synthetic import write_run

VOID = {"meta", "img", "br", "hr", "link", "input", "col"}


class Page(HTMLParser):
    """Collects tags, links, pictures and text; faults are tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs[name] or "" for found, attrs in self.tags if found == tag and name in attrs]


def load(run: Path) -> Page:
    return Page(build_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return load(run)


@pytest.fixture(scope="module", params=[1, 2, 3, 5])
def incomplete(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return load(write_run(tmp_path_factory.mktemp("incomplete"), notebooks=request.param))


def check_sound(page: Page) -> None:
    assert page.faults == []
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(page.attributes("nav", "aria-labelledby")) <= set(ids)
    for target in page.attributes("a", "href"):
        assert not target.startswith("#") or target[1:] in ids
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert "script" not in {tag for tag, _ in page.tags}


def check_clean(page: Page) -> None:
    alts = " ".join(page.attributes("img", "alt"))
    assert re.findall(r"\b(nan|None|NaT|inf|Traceback)\b", f"{page.text} {alts}") == []


def test_page_is_valid_and_clean(page: Page) -> None:
    check_sound(page)
    check_clean(page)


def test_incomplete_runs_too(incomplete: Page) -> None:
    check_sound(incomplete)
    check_clean(incomplete)
    assert "What this run lacks" in incomplete.text
    assert "07_verdict did not finish" in incomplete.text
    assert "not run" in incomplete.text


def test_nothing_comes_from_a_network(run: Path) -> None:
    html = build_report(run).read_text(encoding="utf-8")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert len(html) < 5_000_000


def test_every_picture_is_inside_and_has_words(page: Page) -> None:
    sources, alts = page.attributes("img", "src"), page.attributes("img", "alt")
    assert len(sources) == len(alts) == 2  # the run had no figures: the key plots were drawn
    assert all(source.startswith("data:image/") for source in sources)
    assert all(len(alt) > 15 for alt in alts)
    assert "fits with" in alts[0]


def test_answer_and_verdict_are_shown(page: Page) -> None:
    assert "Whisper medium fits beside Voxtral with 2.8 GiB to spare" in page.text
    for text in ("lowest median latency with equal texts", "10.40 GiB", "15.1 GB", "12.80 GiB on"):
        assert text in page.text


def test_goals_and_how_firm_the_choice_is_are_shown(page: Page) -> None:
    for text in (
        "parallel (threads), 1.05 s; then sequential (plain), 1.21 s",
        "another way wins in 3% of draws of the same trials",
    ):
        assert text in page.text


def test_statuses_verdicts_and_reasons_are_shown(page: Page) -> None:
    for text in (
        "completed",
        "skipped",
        "oom",
        "needs 16.4 GiB at its highest",
        "CUDA out of memory",
        "supported",
        "refuted",
        "inconclusive",
        "not testable here",
        "The original analysis says: medium fits <here>.",
    ):
        assert text in page.text


def test_strategies_stand_against_the_control_of_their_own_notebook(page: Page) -> None:
    row = page.text.split("swapping reload-warm", 1)[1][:160]
    assert "2.38 s" in row
    assert "× 1.95" in row or "× 1.96" in row
    assert "equal" in row


def test_what_was_asked_and_where(page: Page) -> None:
    for text in ("voxtral_weights", "random", "Processor", "Measurement version", "cuda:0"):
        assert text in page.text


def test_links_lead_to_files(run: Path, page: Page) -> None:
    links = [href for href in page.attributes("a", "href") if not href.startswith("#")]
    assert "notebooks/02_whisper_beside_voxtral.html" in links
    assert "cases.parquet" in links
    assert all((run / link).is_file() for link in links)


def test_figures_of_the_run_are_used(tmp_path: Path) -> None:
    run = write_run(tmp_path, notebooks=3)
    cases = records.run_table(run, "cases")
    plots.save(plots.three_numbers(cases), run / "figures", "02-memory-three")
    page = load(run)
    names = re.findall(r"02-memory-three|memory-bars|latency(?= )", page.text)
    assert "02-memory-three" in names
    assert "memory-bars" not in names


def test_texts_are_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path, notebooks=1)
    (run / "verdict.json").write_text(json.dumps({"answer": "<script>alert(1)</script> & so"}))
    page = load(run)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script> & so" in page.text


@pytest.mark.parametrize(
    "verdict",
    ["{", "[]", "{}", '{"options": null, "recommendation": null}', '{"options": [1, {}]}'],
)
def test_odd_verdicts_do_no_harm(verdict: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, notebooks=2)
    (run / "verdict.json").write_text(verdict)
    page = load(run)
    check_sound(page)
    check_clean(page)


def test_a_run_whose_notebook_was_cut_off(tmp_path: Path) -> None:
    run = write_run(tmp_path, notebooks=3)
    (run / "manifest.json").unlink()
    (run / "parts" / "02_whisper_beside_voxtral" / "manifest.json").unlink()
    page = load(run)
    check_sound(page)
    check_clean(page)
    assert "crashed" in page.text
    assert "no manifest" in page.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        build_report(tmp_path)


def test_words_of_missing_values() -> None:
    assert words(None) == words(float("nan")) == words(" ") == as_bytes(None) == "–"
    assert as_seconds(float("nan")) == "–"
    assert words(True) == "yes"
    assert words(["a", "b"]) == "a, b"
    assert words("two\nlines") == "two lines"
