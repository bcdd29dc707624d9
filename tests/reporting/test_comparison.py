"""Runs side by side: what differs, what changed beyond noise, and what must not be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.reporting.html import build_comparison
from hybridlab.reporting.html.comparison import changes
from hybridlab.results.manifest import read_manifest, write_json
from hybridlab.results.reader import read_rows
from tests.pages import Page, check_clean, check_sound
from tests.synthetic import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("a"))


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """The same rows in a folder of their own, to be changed."""
    return shutil.copytree(run, tmp_path / "b" / run.name)


def rewrite(run: Path, table: str, alter: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Pass every row of a table through `alter`."""
    for path in run.glob(f"parts/*/{table}.jsonl"):
        rows = [json.dumps(row | alter(row)) for row in read_rows(path)]
        path.write_text("".join(f"{row}\n" for row in rows))


def compared(*runs: Path, output: Path) -> Page:
    page = Page(build_comparison(runs, output).read_text(encoding="utf-8"))
    check_sound(page)
    check_clean(page)
    return page


def part(page: Page, begin: str, end: str) -> str:
    """The page's words between two headings, the navigation left out."""
    return page.text.rsplit(begin, 1)[1].split(end, 1)[0]


def test_a_run_equals_itself(run: Path, other: Path, tmp_path: Path) -> None:
    page = compared(run, other, output=tmp_path / "c.html")
    assert "Nothing changed beyond noise; 0 claims with another verdict." in page.text
    assert "parameter" not in page.text
    assert "× 1.00 (0.9" in page.text


def test_only_what_changed_is_marked(run: Path, other: Path, tmp_path: Path) -> None:
    slower = {"threads": 1.5}
    rewrite(
        other,
        "trials",
        lambda row: {"latency_s": row["latency_s"] * slower.get(row["variant"], 1.0)},
    )
    larger = {"beside-turbo": 1.2}
    rewrite(
        other,
        "cases",
        lambda row: {
            name: value and int(value * larger.get(row["case_id"], 1.0))
            for name, value in row.items()
            if name == "request_peak_bytes"
        },
    )
    rewrite(
        other, "claims", lambda row: {"verdict": "supported"} if row["claim"] == "swap-25s" else {}
    )
    manifest = read_manifest(other)
    manifest["params"]["trials"] = 99
    manifest["versions"]["torch"] = "1.0"
    write_json(other / "manifest.json", manifest)
    page = compared(run, other, output=tmp_path / "c.html")
    said = "Beyond noise changed: latency of parallel/threads; 1 claim with"
    assert said in page.text
    measures = part(page, "Latency, throughput and memory", "Claims with another verdict")
    assert measures.count(" changed ") == 1
    assert "too few cases" in measures  # one of each size
    assert "× 1.50" in measures
    claims = part(page, "Claims with another verdict", "Made by")
    assert "refuted supported" in claims
    assert "medium fits" not in claims
    differing = part(page, "The runs, and what differs", "The rule")
    assert "parameter trials 6 99" in differing
    assert "torch 1.0" in differing
    assert "parameter seed" not in differing


def test_other_methods_are_not_compared(run: Path, other: Path, tmp_path: Path) -> None:
    write_json(other / "manifest.json", {**read_manifest(other), "measurement_version": 2})
    page = compared(run, other, output=tmp_path / "c.html")
    assert "Nothing can be compared" in page.text
    assert "B is not compared with A: measured by versions" in page.text
    assert "×" not in page.text


def test_a_run_without_races_has_nothing_to_compare(run: Path, tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", notebooks=1)
    assert "Nothing can be compared" in compared(run, first, output=tmp_path / "c.html").text


def test_folders_that_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="different run folders"):
        build_comparison([run, run], tmp_path / "c.html")
    with pytest.raises(RunFolderError, match="is not there"):
        build_comparison([run, tmp_path / "nowhere"], tmp_path / "c.html")


@pytest.mark.parametrize(
    ("factor", "n", "word"),
    [
        (1.1, 5, "changed"),
        (1 / 1.1, 5, "changed"),
        (1.01, 5, "no change"),
        (1.02, 5, "no change"),
        (3.0, 4, "too few cases"),
        (1.0, 0, "not compared"),
    ],
)
def test_a_change_must_leave_the_noise(factor: float, n: int, word: str) -> None:
    before = [1.0, 1.01, 0.99, 1.0, 1.005]
    ((ratio, found),) = changes([(before, [value * factor for value in before[:n]])])
    assert found == word
    assert ratio.startswith(f"× {factor:.2f}" if n == 5 else "×" if n else "–")


def test_many_figures_at_once_ask_for_more() -> None:
    before = [1.0, 1.01, 0.99, 1.0, 1.005]
    near = (before, [1.03, 1.04, 1.06, 1.05, 1.045])
    assert [word for _, word in changes([near])] == ["changed"]
    assert {word for _, word in changes([near, *[(before, before)] * 30])} == {"no change"}


def test_the_command_compares_and_prints(
    run: Path,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, status, said in (
        ([run, other], 0, "comparison: comparison.html"),
        ([run, other, "--output", "other.html"], 0, "comparison: other.html"),
        (
            [run, "--output", "x.html"],
            2,
            "hybridlab: --output is for comparisons; a run's page is RUN/index.html",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            app(args=["report", *map(str, arguments)])
        captured = capsys.readouterr()
        assert (ended.value.code, (captured.out + captured.err).strip()) == (status, said)
    assert (tmp_path / "other.html").is_file()
