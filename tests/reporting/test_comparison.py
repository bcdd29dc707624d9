"""Runs side by side: what differs, what changed beyond noise, and what must not be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridlab.analysis.stats import ratio_interval
from hybridlab.cli.commands import app
from hybridlab.errors import ParameterError, RunFolderError
from hybridlab.reporting.html import build_comparison
from hybridlab.reporting.html.comparison import change, noise_of
from hybridlab.results.manifest import read_manifest, write_json
from hybridlab.results.reader import read_rows
from tests.pages import Page, check_clean, check_sound
from tests.reporting.frames import frame
from tests.synthetic import write_run

Rows = Callable[[dict[str, Any]], dict[str, Any]]


def rewrite(run: Path, table: str, alter: Rows) -> None:
    """Pass every row of a table through `alter`."""
    for path in run.glob(f"parts/*/{table}.jsonl"):
        rows = [json.dumps(alter(row)) for row in read_rows(path)]
        path.write_text("".join(f"{row}\n" for row in rows))


def compared(*runs: Path, output: Path) -> Page:
    page = Page(build_comparison(runs, output).read_text(encoding="utf-8"))
    check_sound(page)
    check_clean(page)
    return page


def part(page: Page, start: str, end: str) -> str:
    """The page's text between the last heading `start` and `end`."""
    return page.text.rsplit(start, 1)[1].split(end, 1)[0]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a"), write_run(tmp_path / "b")


def test_a_run_equals_itself(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = compared(*runs, output=tmp_path / "c.html")
    assert "Nothing changed beyond noise; no claim with another verdict." in page.text
    assert "parameter" not in part(page, "The runs, and what differs", "The rule")
    assert "× 1.00 (0.9" in page.text


def test_only_what_became_slower_is_marked(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def slower(row: dict[str, Any]) -> dict[str, Any]:
        factor = 1.5 if row["variant"] == "threads" else 1.0
        return {**row, "latency_s": row["latency_s"] * factor}

    rewrite(runs[1], "trials", slower)
    page = compared(*runs, output=tmp_path / "c.html")
    assert "Beyond noise changed: latency of parallel/threads; no claim" in page.text
    measures = part(page, "Latency, throughput and memory", "Claims with another verdict")
    assert measures.count(" changed ") == 1
    assert "× 1.50" in measures


def test_bytes_and_verdicts(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def larger(row: dict[str, Any]) -> dict[str, Any]:
        if row["case_id"] != "beside-turbo":
            return row
        return {**row, "request_peak_bytes": int(row["request_peak_bytes"] * 1.2)}

    def judged(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "verdict": "supported"} if row["claim"] == "swap-25s" else row

    rewrite(runs[1], "cases", larger)
    rewrite(runs[1], "claims", judged)
    page = compared(*runs, output=tmp_path / "c.html")
    assert "Beyond noise changed: request peak of turbo; 1 claim" in page.text
    told = part(page, "Claims with another verdict", "Made by")
    assert "refuted supported" in told
    assert "medium fits" not in told


def test_other_methods_are_not_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = read_manifest(runs[1])
    write_json(runs[1] / "manifest.json", {**manifest, "measurement_version": 2})
    page = compared(*runs, output=tmp_path / "c.html")
    assert "Nothing in these runs can be compared" in page.text
    assert "B is not compared with A: measured by versions" in page.text
    assert "×" not in page.text


def test_parameters_that_differ_are_shown(runs: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = read_manifest(runs[1])
    manifest["params"]["trials"] = 99
    manifest["versions"]["torch"] = "1.0"
    write_json(runs[1] / "manifest.json", manifest)
    text = part(
        compared(*runs, output=tmp_path / "c.html"), "what differs between them", "The rule"
    )
    assert "parameter trials 6 99" in text
    assert "version of torch" in text
    assert "parameter seed" not in text


def test_folders_that_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="different run folders"):
        build_comparison([runs[0], runs[0]], tmp_path / "c.html")
    with pytest.raises(RunFolderError, match="is not there"):
        build_comparison([runs[0], tmp_path / "nowhere"], tmp_path / "c.html")


@pytest.mark.parametrize(
    ("factor", "n", "noise", "word"),
    [
        (1.1, 5, 0.02, "changed"),
        (1 / 1.1, 5, 0.02, "changed"),
        (1.1, 5, 0.15, "no change"),
        (1.0, 4, 0.02, "n = 4: too few to tell"),
        (1.0, 0, 0.02, "not compared"),
    ],
)
def test_a_change_must_leave_the_noise(factor: float, n: int, noise: float, word: str) -> None:
    before = [1.0, 1.01, 0.99, 1.0, 1.005]
    after = [value * factor for value in before[:n]]
    assert change(before, after, "latency_s", noise=noise)[1] == word


@pytest.mark.parametrize(
    ("cases", "column", "noise"),
    [
        ({"A": [1.0, 1.08], "B": [1.0, 1.02]}, "latency_s", 0.08),
        ({"A": [1.0, 1.001]}, "latency_s", 0.02),
        ({"A": [1.0], "B": [2.0]}, "latency_s", 0.1),
        ({"A": [1.0], "B": [2.0]}, "peak_bytes", 0.02),
    ],
)
def test_noise_is_an_arms_own_where_it_was_measured_twice(
    cases: dict[str, list[float]], column: str, noise: float
) -> None:
    rows = [(run, f"case-{n}", v) for run, own in cases.items() for n, v in enumerate(own)]
    values = frame("run case_id value", *rows, notebook="")
    assert noise_of(values, column) == pytest.approx(noise)


def test_ratio_interval_of_known_samples() -> None:
    same = ratio_interval([2.0] * 8, [3.0] * 8)
    assert (same.value, same.low, same.high, same.n) == (1.5, 1.5, 1.5, 8)
    spread = ratio_interval([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert spread.low < spread.value == 2.0 < spread.high
    assert ratio_interval([1.0], [2.0, 3.0]).low != ratio_interval([1.0], [2.0, 3.0]).low
    assert ratio_interval([], [1.0]).n == 0


def test_the_command_compares_and_prints(
    runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["report", str(runs[0]), str(runs[1])], capsys) == "comparison: comparison.html"
    output = tmp_path / "other.html"
    told = command(["report", *map(str, runs), "--output", str(output)], capsys)
    assert told == "comparison: other.html"
    assert output.is_file()
    line = command(["report", str(runs[0]), "--output", "x.html"], capsys, status=2)
    assert line == "hybridlab: --output is for comparisons; a run's page is RUN/index.html"
    monkeypatch.setenv("PATH", "")
    line = command(["report", str(runs[0]), "--pdf"], capsys, status=2)
    assert line.count("\n") == 1  # the page is there, and one line says what is not
    assert "no browser here to print the PDF; install one" in line


def command(arguments: list[str], capsys: pytest.CaptureFixture[str], *, status: int = 0) -> str:
    """What the command says, on both streams."""
    with pytest.raises(SystemExit) as ended:
        app(args=arguments)
    assert ended.value.code == status
    captured = capsys.readouterr()
    return (captured.out + captured.err).strip()
