"""Nothing that a reader sees of a simulated card speaks of time, or of texts that were not kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text

from hybridlab import catalog
from hybridlab.analysis.claims.claims_file import load_claims
from hybridlab.analysis.recommendation import Requirements, recommend
from hybridlab.analysis.verdict import judge, read_verdict, write_verdict
from hybridlab.reporting import answers, key_findings, labels
from hybridlab.reporting import tables as summary
from hybridlab.reporting.html import answer, build_report, tables
from hybridlab.reporting.html.page_one import page_one
from hybridlab.reporting.html.run_info import method_block
from hybridlab.reporting.html.view_model import Run
from hybridlab.results.reader import part_folders, read_rows, run_table
from hybridlab.results.schema import COMMON_COLUMNS, TABLES, columns, is_time
from hybridlab.results.writer import TableWriter
from hybridlab.simulation import NO_TEXTS, NO_TIMES
from hybridlab.widgets.whatif import comparable_arms
from tests.pages import load
from tests.reporting.figures.drawn import DRAWN, FROM_TABLES, Tables, more_rows
from tests.synthetic import write_run

DEVICE = "simulated:t4"
#: A figure of time, or a word that only times can carry. Lengths of audio are none.
OF_TIME = re.compile(
    r"\d\s?(ms|s|min|h|hours|days)\b(?! of audio| fits)|requests/s|per minute|[Ff]aste(r|st)\b|"
    r"times as (long|fast)|slower|median latency|\bRTFx\b \d"
)
MISSING = re.compile(r"\b(nan|NaN|None|NaT)\b")
#: Figures of bytes, of which some show times as well.
OF_BYTES = {
    *("memory_bars", "load_peak", "all_cases", "one_case", "three_numbers", "predicted"),
    "which_fits",
    *("survival", "request_scaling", "soak"),
}
#: Columns of times, and of what follows from them.
TIMED = re.compile(r"(^| )(s|ms|ms a cycle|requests/s|J/request|RTFx|of latency|stable)$")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic run as a simulated card would have left it, its own verdict written anew."""
    folder = write_run(tmp_path_factory.mktemp("simulated"))
    for part in part_folders(folder):
        writer = TableWriter(part, {"run_id": folder.name, "memory_limited": False})
        for name in TABLES:
            path = part / f"{name}.jsonl"
            rows = read_rows(path)
            path.unlink(missing_ok=True)
            more = more_rows().get(name, []) if part.name == "05_parallel" else []
            for row in [*rows, *more]:
                least = {
                    column.name: None if type(None) in column.types else column.types[0]()
                    for column in columns(name).values()
                    if column.required and column.name not in COMMON_COLUMNS
                }
                known = {n: value for n, value in row.items() if n in columns(name)}
                writer.append(name, {**least, **known, "device": DEVICE, "evidence": "simulated"})
    cases, trials = (run_table(folder, table) for table in ("cases", "trials"))
    write_verdict(folder, cases, recommend(cases, trials), device=DEVICE, card="t4")
    return folder


@pytest.fixture(scope="module")
def rows(run: Path) -> Tables:
    return {name: run_table(run, name) for name in TABLES}


def check(said: Iterable[str]) -> None:
    for sentence in said:
        assert not OF_TIME.search(sentence), sentence
        assert not MISSING.search(sentence), sentence


@pytest.mark.parametrize("name", FROM_TABLES)
def test_no_figure_speaks_of_time(name: str, rows: Tables) -> None:
    figure = DRAWN[name](rows)
    figure.draw_without_rendering()
    written = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    check(written)
    if name in OF_BYTES:
        assert figure.axes, written
    elif name == "quality_memory":
        assert written[0].startswith("No model's text was held")
    else:
        assert written == [f"No times: {NO_TIMES}."]


def test_no_table_speaks_of_time(rows: Tables) -> None:
    trials, own, spans, cycles = (rows[n] for n in ("trials", "cases", "spans", "cycles"))
    shown = [
        summary.latency_table(trials, own),
        summary.slowdown_table(spans, own),
        summary.quality_table(trials),
        summary.quality_by_size(trials, own),
        summary.phase_table(spans, own),
        summary.memory_table(own),
        summary.memory_limits_table(own, rows["probes"]),
        summary.soak_table(cycles, own),
        summary.growth_table(cycles),
        summary.swap_table(spans, own),
        summary.arrivals_table(trials, own),
        summary.containers_table(trials, own),
    ]
    assert sum(len(table) for table in shown) > 50
    for table in shown:
        check(str(value) for value in table.to_numpy().ravel())
        for column in table:
            if TIMED.search(column):
                assert set(table[column]) <= {labels.EMPTY}, column
    assert (summary.growth_table(cycles)["latency ms/100"] == "no reading").all()
    assert (summary.latency_table(trials, own)["peak GiB"] != labels.EMPTY).all()


def test_no_finding_speaks_of_time(rows: Tables) -> None:
    trials, own, spans, cycles = (rows[n] for n in ("trials", "cases", "spans", "cycles"))

    def of(experiment: str) -> pd.DataFrame:
        return own[own["experiment"] == experiment]

    said = [
        *key_findings.baseline(of("baseline"), trials),
        *answers.baseline(of("baseline")),
        *answers.beside(of("co_residency")),
        *answers.limits(own, rows["probes"], cycles),
        *answers.sequential(own, trials),
        *answers.parallel(own, trials),
        *answers.swapping(own, trials, spans),
        *key_findings.limits(of("request_scaling")),
        *key_findings.memory_limits(of("memory_limits"), rows["probes"]),
        *key_findings.soak(cycles, own),
        *key_findings.quality(trials, own),
        *key_findings.strategy_comparison(of("strategy_comparison"), trials),
        *key_findings.swapping(spans, own),
        *key_findings.containers(trials, own),
        *key_findings.at_once(rows["ledgers"]),
        *key_findings.arrivals(trials, own),
    ]
    assert len(said) > 10
    check(said)
    assert not any(
        "said what they said" in sentence or "what the models say alone" in sentence
        for sentence in said
    )


def test_the_verdict_rests_on_bytes_alone(run: Path, rows: Tables) -> None:
    found = recommend(rows["cases"], rows["trials"])
    assert found is not None
    assert found.by_bytes
    check([found.why, found.why_not, *found.notes, *(str(goal) for goal in found.goals)])
    assert NO_TIMES in found.why
    told = page_one(Run(run)).sharing.evidence
    assert "simulated with Voxtral" in told and "measured" not in told
    written = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    check([written["answer"], written["recommendation"]["why"]])
    assert "a simulated NVIDIA T4" in written["answer"]
    times = {k: v for k, v in written["recommendation"].items() if is_time(k)}
    assert set(times) >= {"median_s", "low_s", "high_s", "throughput_rps"}
    assert set(times.values()) == {None}
    strict = read_verdict(run, Requirements(max_p95_s=100.0))
    assert strict["recommendation"] is None  # nobody knows whether it would be kept
    assert comparable_arms(rows["cases"], rows["trials"]) == []


def test_claims_about_times_and_texts_are_not_testable(rows: Tables) -> None:
    own = {"capacity_bytes": catalog.card("t4").usable_bytes}
    released = rows["cases"].assign(llm_weights="hub", asr_weights="hub", **own)
    judged = {
        row["claim"]: row
        for row in judge(load_claims(None), {**rows, "cases": released}, device=DEVICE, card="t4")
    }
    of_times = (
        *("voxtral-25s", "whisper-3s", "sequential-28s", "parallel-own-cores", "one-at-a-time"),
        *("swapping-reload-cost", "processes-help", "batching-helps", "base-fastest"),
    )
    for name in of_times:
        assert (judged[name]["verdict"], judged[name]["reason"]) == ("not testable here", NO_TIMES)
    quality = judged["quality-order"]
    assert (quality["verdict"], quality["reason"]) == ("not testable here", NO_TEXTS)
    of_bytes = ("voxtral-memory", "sequential-both-loaded", "fragmentation-grows", "medium-fits")
    for name in of_bytes:
        assert judged[name]["verdict"] != "not testable here", judged[name]
        assert "a simulated NVIDIA T4" in judged[name]["reason"], judged[name]


def test_the_page_says_why_there_are_no_times(run: Path) -> None:
    page = build_report(run).read_text(encoding="utf-8")
    visible = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|NaT)\b", visible)
    opened = Run(run)
    one = page_one(opened)
    check(
        [
            one.sentence,
            one.sharing.advice,
            one.sharing.evidence,
            one.evidence,
            *one.cannot,
            *one.cautions,
        ]
    )
    check(text for number in one.numbers for text in number)
    check(answer.recommendation(opened).values())
    check(text for card in answer.cards(opened) for text in card)
    assert any(NO_TIMES in line for line in answer.missing(opened))
    assert f"<dd>none: {NO_TIMES}</dd>" in method_block(opened)
    shown = [tables.strategies_table(opened), tables.containers_table(opened)]
    shown += [tables.memory_table(opened), tables.cases_table(opened)]
    for table in shown:
        assert table.rows
        check(str(cell) for row in table.rows for cell in row)
    assert load(run)
