"""What-if on a race whose answers are known by construction."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from hybridlab.analysis.recommendation import Requirements, recommend
from hybridlab.results.schema import required_columns
from hybridlab.units import GIB
from hybridlab.widgets.whatif import Race, whatif, whatif_html
from tests.analysis.test_verdict import Rows

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    rows = Rows()
    rows.arm("sequential", "plain", "04", factor=1.0, peak=8 * GIB)
    rows.arm("parallel", "threads", "04", factor=0.7, peak=11 * GIB)
    rows.arm("swapping", "single-buffer", "04", factor=1.6, peak=6 * GIB)
    rows.arm("sequential", "batched", "04", factor=3.0, peak=9 * GIB, throughput_rps=4.0)
    return rows.tables["cases"], rows.tables["trials"]


@pytest.fixture(scope="module")
def race(tables: Tables) -> Race:
    return Race.of(*tables)


def test_without_wishes_it_is_the_verdicts_word(race: Race, tables: Tables) -> None:
    found = whatif(race, Requirements())
    assert found.recommendation == recommend(*tables)
    assert [arm.strategy for arm in found.front] == ["parallel", "sequential", "swapping"]
    assert not any(found.broken.values())


def test_wishes_change_the_pick(race: Race) -> None:
    small = whatif(race, Requirements(min_margin_bytes=6 * GIB))
    assert small.recommendation is not None
    assert small.recommendation.strategy == "sequential"
    assert small.broken["parallel/threads"] == ["margin below 6.00 GiB"]
    none = whatif(race, Requirements(max_p95_s=0.01))
    assert none.recommendation is None
    assert none.front == []


def test_no_arm_holds_more_than_it_serves(race: Race) -> None:
    """One request takes 0.65 s times the factor; sequential serves 1 /s without a pause."""
    found = whatif(race, Requirements(), rate_rps=1.2)
    assert found.waiting["sequential/plain"].words == "measured: it serves 1 /s at most"
    assert found.broken["sequential/plain"] == ["1.2 requests/s"]


def test_rates_that_nobody_measured_are_derived(race: Race) -> None:
    """Far below capacity nobody waits; several requests at once have no formula here."""
    found = whatif(race, Requirements(), rate_rps=0.05)
    assert found.waiting["parallel/threads"].words.startswith("derived: mean latency")
    assert not found.broken["parallel/threads"]
    assert found.waiting["sequential/batched"].words.startswith("unknown: several at once")
    assert found.broken["sequential/batched"] == ["0.05 requests/s"]


def test_measured_waiting_counts_in_place_of_the_races_p95(tables: Tables) -> None:
    cases, trials = tables
    about = {"experiment": "load_sweep", "strategy": "parallel", "variant": "threads"}
    offered = [
        {**about, "case_id": f"p{rate}", "status": "ok", "rate_rps": rate, "load": rate,
         "throughput_rps": rate}
        for rate in (0.2, 0.6)
    ]  # fmt: skip
    waited = [
        {
            **about,
            "case_id": f"p{rate}",
            "latency_s": seconds,
            "queue_time_s": 0.1,
            "is_first_request": False,
        }
        for rate, seconds in ((0.2, 1.5), (0.6, 4.0))
        for _ in range(3)
    ]
    race = Race.of(
        pd.concat([cases, pd.DataFrame(offered)], ignore_index=True),
        pd.concat([trials, pd.DataFrame(waited)], ignore_index=True),
    )
    low = whatif(race, Requirements(max_p95_s=1.4), rate_rps=0.1)
    assert low.waiting["parallel/threads"].words == "measured at 0.2 /s, n = 3"
    assert low.broken["parallel/threads"] == ["p95 above 1.4 s"]
    assert not whatif(race, Requirements(max_p95_s=1.6), rate_rps=0.1).broken["parallel/threads"]
    high = whatif(race, Requirements(), rate_rps=0.5)
    assert high.waiting["parallel/threads"].p95_s == 4.0
    assert not high.waiting["parallel/threads"].holds  # beyond the knee: 4.0 > 2 x 1.5


def test_the_view_marks_every_arm_in_words(race: Race) -> None:
    shown = whatif_html(race, Requirements(min_margin_bytes=6 * GIB))
    assert '<b class="pick">sequential/plain</b>' in shown
    assert shown.count("<tr>") == 1 + len(race.arms)
    assert shown.count("<b>✗</b>") == 2
    assert "nan" not in shown
    nothing = whatif_html(race, Requirements(max_p95_s=0.01))
    assert "No way of sharing that was measured keeps all that" in nothing


def test_without_a_race_it_says_so() -> None:
    cases, trials = (
        pd.DataFrame(columns=[*required_columns(name)]) for name in ("cases", "trials")
    )
    race = Race.of(cases, trials)
    assert "run the notebooks 04 to 06" in whatif_html(race, Requirements(max_wer=math.inf))
