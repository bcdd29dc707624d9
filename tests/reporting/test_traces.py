"""What the page's traces are made of: thinned without losing a peak, complete, within a budget."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hybridlab.reporting.html import traces as module
from hybridlab.reporting.html.traces import bands, case_names, packed, thinned, traces, vega_script
from hybridlab.reporting.html.view_model import Run
from tests.synthetic import case, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(write_run(tmp_path_factory.mktemp("traces")))


def test_a_thinned_curve_keeps_its_ends_and_every_extreme() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 100, 20_000))
    values = rng.normal(0, 1, 20_000)
    values[12_345] = 50.0
    kept = thinned(times, values, 100)
    assert len(kept) <= 202
    assert {0, 12_345, len(times) - 1} <= set(kept.tolist())
    assert values[kept].min() == values.min()
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize("n", [0, 1, 2, 200])
def test_a_short_curve_stays_whole(n: int) -> None:
    times = np.linspace(0, 1, n)
    assert thinned(times, times, 100).tolist() == list(range(n))


def test_every_case_with_readings_or_phases_is_there(run: Run) -> None:
    found = traces(run)
    watched = set(run.tables["samples"]["case_id"]) | set(run.tables["spans"]["case_id"])
    assert len(found["cases"]) == len(watched)
    assert found["left_out"] == 0
    race = next(
        c for c in found["cases"] if c["id"] == "case-05-race-parallel-threads-05_parallel-r0"
    )
    assert race["readings"] == race["shown"] == 160
    assert {role for role, *_ in race["spans"]} == {"llm", "asr"}
    assert all(start <= end for _, _, start, end in race["spans"])
    assert found["cases"][found["start"]]["label"].startswith("strategy comparison: ")


def test_later_rounds_go_first_where_the_page_is_full(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = traces(run)["cases"]
    monkeypatch.setattr(module, "BUDGET_CHARACTERS", 30_000)
    found = traces(run)
    assert 0 < len(found["cases"]) < len(every)
    assert found["left_out"] == len(every) - len(found["cases"])
    assert not any("round 2" in trace["label"] for trace in found["cases"])


def test_close_phases_are_joined() -> None:
    starts = np.arange(1000) / 1000
    spans = pd.DataFrame(
        {"role": "copy", "phase": "copy-in", "start_s": starts, "end_s": starts + 0.0009}
    )
    assert bands(spans) == [["copy", "copy-in", 0.0, pytest.approx(0.9999)]]
    assert len(bands(spans.iloc[::100])) == 10


def test_names_tell_cases_apart() -> None:
    rows = [
        case(f"c{n}", "strategy_comparison", round=n % 2, notebook="04_sequential")
        for n in range(3)
    ]
    names = case_names(pd.DataFrame(rows))
    assert names == [
        "strategy comparison: sequential/plain, round 1",
        "strategy comparison: sequential/plain, round 2",
        "strategy comparison: sequential/plain, round 1 (2)",
    ]


def test_the_library_is_small_and_always_the_same() -> None:
    assert len(packed(vega_script())) < 500_000
    assert packed("a") == packed("a")
    assert "vegaEmbed" in vega_script()
