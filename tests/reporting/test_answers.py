"""Each notebook's question is answered first, with its number, its n and how it is known; below the
least n that is said instead."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hybridlab.config.params import NOTEBOOKS
from hybridlab.reporting import answers, key_findings
from hybridlab.results.reader import run_table
from hybridlab.units import GIB, MIB
from tests.analysis.test_verdict import Rows
from tests.synthetic import write_run

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("answers"))


def of(run: Path, number: str) -> Tables:
    """The rows of one notebook, as it has them itself."""
    names = ("cases", "trials", "probes", "cycles", "spans")
    found = {name: run_table(run, name) for name in names}
    return {
        name: rows[rows["notebook"].astype(str).str.startswith(number)]
        for name, rows in found.items()
    }


def told(run: Path, number: str) -> list[str]:
    """What the notebook answers."""
    t = of(run, number)
    cases, trials = t["cases"], t["trials"]
    return {
        "01": lambda: answers.baseline(cases),
        "02": lambda: answers.beside(cases),
        "03": lambda: answers.limits(cases, t["probes"], t["cycles"]),
        "04": lambda: answers.sequential(cases, trials),
        "05": lambda: answers.parallel(cases, trials),
        "06": lambda: answers.swapping(cases, trials, t["spans"]),
    }[number]()


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_the_first_sentence_has_a_number_its_n_and_how_it_is_known(run: Path, number: str) -> None:
    sentences = told(run, number)
    assert 1 <= len(sentences) <= 4
    assert re.search(r"\d", sentences[0])
    assert re.search(r"\(measured on cuda:0, n = \d+ \w+", sentences[0])
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in sentences)


def test_voxtrals_bytes_are_told_by_owner_and_sum_to_its_peak(run: Path) -> None:
    (sentence,) = told(run, "01")
    peak, *parts = re.findall(r"([\d.]+) (MiB|GiB)", sentence)
    size = {"MiB": MIB, "GiB": GIB}
    total = sum(float(number) * size[unit] for number, unit in parts)
    assert total == pytest.approx(float(peak[0]) * size[peak[1]], abs=0.02 * GIB)
    assert "Voxtral weights 8.71 GiB" in sentence


def test_sizes_that_fit_are_named_and_those_that_do_not_with_what_became_of_them(run: Path) -> None:
    first = told(run, "02")[0]
    assert first.startswith("5 of 6 sizes fit beside Voxtral mini-3b at load, at rest and at work")
    assert first.endswith("small, medium and turbo; not so large-v3 (skipped).")
    cases = of(run, "02")["cases"]
    short = cases["asr_model"].eq("turbo")
    cases = cases.assign(margin_bytes=cases["margin_bytes"].mask(short, -512 * MIB))
    assert "not so large-v3 (skipped) and turbo (512 MiB short)" in answers.beside(cases)[0]


def test_on_a_simulated_card_it_is_said_so(project: Path) -> None:
    cases = run_table(project / "outputs" / "reference" / "t4-simulated", "cases")
    first = answers.beside(cases)[0]
    assert first.startswith("6 of 6 sizes fit") and "(simulated T4, n = 1 case each)" in first


def test_the_remedy_that_helps_is_named(run: Path) -> None:
    ageing = told(run, "03")[-1]
    assert ageing.startswith("Memory grows in 2 of 6 arms, at most by ")
    assert "; with empty-cache and restart none can be told (" in ageing
    assert "n = 6 arms of 60 cycles" in ageing
    t = of(run, "03")
    few = t["cycles"][t["cycles"]["cycle"] < 3]
    assert answers.limits(t["cases"], t["probes"], few)[-1].startswith("Too few cycles to see a")


SEARCHES = [
    {"limit_kind": "audio_s", "limit_found": 90.0, "limit_hit": True},
    {"limit_kind": "batch", "limit_found": 12.0, "limit_hit": False},
    {"limit_kind": "beams", "limit_found": 0.0, "limit_hit": True},
]


def test_limits_that_were_searched_for_answer_before_sizes_that_were_tried(run: Path) -> None:
    t = of(run, "03")
    rows = Rows()
    for search in SEARCHES:
        name = str(search["limit_kind"])
        rows.case(name, "memory_limits", strategy="sequential", **search)
        rows.add("probes", case_id=name, limit_kind=name, repeat=0, value=1.0, succeeded=True)
    found = rows.tables
    cases = pd.concat([t["cases"], found["cases"].assign(memory_limited=True)])
    assert answers.limits(cases, found["probes"], t["cycles"])[0] == (
        "The longest audio is 90 s (sequential), the largest batch is 12 or more, since nothing "
        "failed (sequential) and the most beams is not even the smallest (sequential) (measured "
        "on cpu, inside a memory limit, n = 1 search each, 3 probes)."
    )


# ------------------------------------------------------------------------------- races of arms


def race(*, rounds: int = 5, **factors: float) -> Rows:
    """The control, and arms by how much longer they take."""
    rows = Rows()
    rows.arm("sequential", "plain", "04", rounds=rounds, peak=10 * GIB)
    for name, factor in factors.items():
        strategy, _, variant = name.partition("__")
        rows.arm(strategy, variant, "04", rounds=rounds, factor=factor, peak=8 * GIB)
    return rows


def words(rows: Rows, *, whisper: str, voxtral: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its tables with transcripts of five clips, beside that of the first request."""
    trials = rows.tables["trials"]
    solo = trials["strategy"].eq("solo")
    trials = trials.assign(
        clip_id=[f"clip-{number % 6}" for number in range(len(trials))],
        reference="one two three four",
        transcript=pd.Series(whisper, trials.index).mask(solo, voxtral),
        transcript_finish="stop",
    )
    return rows.tables["cases"], trials


def sequential(rows: Rows, **said: str) -> list[str]:
    cases, trials = rows.tables["cases"], rows.tables["trials"]
    return answers.sequential(*(words(rows, **said) if said else (cases, trials)))


def test_whisper_is_needed_for_what_it_is_clearly_better_at() -> None:
    same = {"whisper": "one two three four", "voxtral": "one two three four"}
    slow = sequential(race(solo__shared=1.4), **same)
    assert slow[0].startswith("sequential/plain costs ")
    assert "10.00 GiB at its peak (measured on cpu, n = 5 rounds)" in slow[0]
    assert slow[1].startswith(
        "Whisper is needed for time: solo/shared takes 1.40 [1.40, 1.40] times as long and 2.00 "
        "GiB less; it gets 0.0 % of the words wrong, Whisper 0.0 %, n = 5 clips, a tie"
    )
    fast = sequential(race(solo__shared=0.6), **same)
    assert fast[1].startswith("Whisper is not seen to be needed for time or words: solo/shared")
    deaf = sequential(race(solo__shared=0.6), **same | {"voxtral": "one two six six"})
    assert deaf[1].startswith("Whisper is needed for words: ")
    untold = sequential(race(solo__shared=0.6))
    assert untold[1].startswith("Whisper is not seen to be needed for time, of words nothing is")
    assert sequential(race())[1] == (
        "Whether Whisper is needed is open: Voxtral alone did not race."
    )


@pytest.mark.parametrize(
    ("factor", "words"),
    [(0.7, "Yes, they overlap: "), (1.3, "No, they hinder each other: ")],
)
def test_two_at_once_are_judged_by_the_control_of_the_same_rounds(
    factor: float, words: str
) -> None:
    tables = race(parallel__threads=factor, parallel__processes=2.0).tables
    (sentence,) = answers.parallel(tables["cases"], tables["trials"])
    assert sentence == (
        f"{words}parallel/threads, the fastest of 2, takes {factor:.2f} [{factor:.2f}, "
        f"{factor:.2f}] times as long as sequential/plain (measured on cpu, n = 5 rounds)."
    )


def test_below_five_rounds_nothing_is_answered() -> None:
    rows = race(rounds=2, parallel__threads=0.7, solo__shared=0.6)
    cases, trials = rows.tables["cases"], rows.tables["trials"]
    assert answers.parallel(cases, trials)[0].startswith("Too few rounds to tell whether they run")
    assert answers.sequential(cases, trials)[1].startswith("Too few rounds to tell whether Whisper")
    found = key_findings.strategy_comparison(cases, trials)
    assert any(
        sentence.startswith("So far, in too few rounds to tell, times") for sentence in found
    )
    alike = race(parallel__threads=1.0).tables
    assert answers.parallel(alike["cases"], alike["trials"])[0].startswith("That they run at once")


def test_without_times_the_bytes_answer() -> None:
    rows = race(parallel__threads=0.7)
    (sentence,) = answers.parallel(rows.tables["cases"], rows.tables["trials"].iloc[:0])
    assert sentence == (
        "At their peaks, smallest first (measured on cpu, n = 10 cases): parallel/threads 8.00 "
        "GiB, sequential/plain 10.00 GiB; no time can be compared."
    )


def test_what_swapping_saves_is_held_against_both_resident(run: Path) -> None:
    saves, costs = told(run, "06")
    assert saves.startswith("swapping/reload-cached saves 3.02 GiB at rest and 0 B at the peak, ")
    costs = re.sub(r"[\d.]+ ms", "N ms", costs)
    assert costs == "Each switch costs N ms (reload-cached) (measured on cuda:0, n = 5 cases)."


# ----------------------------------------------------------------------------- in the notebooks


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_every_notebook_ends_with_its_answer(project: Path, name: str) -> None:
    book: Any = json.loads((project / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    cells = book["cells"]
    (place,) = (i for i, c in enumerate(cells) if "".join(c["source"]) == "## What was learnt")
    source = "".join(cells[place + 1]["source"])
    first = re.search(r"key_findings\.markdown\(\s*([\w.]+)", source)
    assert first is not None
    assert re.match(r"answers\.|setup\.answer|result\.findings", first.group(1))
    assert cells[place + 1]["metadata"]["jupyter"] == {"source_hidden": True}
