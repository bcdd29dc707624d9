from __future__ import annotations

import pandas as pd

from hybridlab.reporting import figures, key_findings, tables

CASES = pd.DataFrame({"experiment": ["strategy_comparison"], "status": ["ok"], "case_id": ["a"]})


def trials(*latencies: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "experiment": "strategy_comparison",
            "strategy": "sequential",
            "variant": "plain",
            "is_first_request": False,
            "latency_s": list(latencies),
            "output_matches_reference": True,
        }
    )


def test_a_single_trial_has_no_interval() -> None:
    (sentence,) = key_findings.race(CASES, trials(0.5))
    assert "500 ms (n = 1)" in sentence
    assert "1 of 1" in sentence


def test_several_trials_have_one() -> None:
    (sentence,) = key_findings.race(CASES, trials(1.0, 2.0, 3.0))
    assert sentence.startswith("sequential/plain: 2 s (1 s to 3 s, n = 3)")


def test_a_step_down_the_ladder_is_said_once_for_all_rounds() -> None:
    cases = pd.DataFrame(
        {
            "case_id": ["a", "b", "c"],
            "strategy": "parallel",
            "variant": "threads",
            "status": ["ok", "ok", "oom"],
        }
    )
    probes = pd.DataFrame(
        {
            "experiment": "strategy_comparison",
            "case_id": ["a", "b", "c"],
            "from_size": "medium",
            "to_size": ["small", "small", None],
            "at_request": ["clip-03", "clip-03", "load"],
            "message": "CUDA out of memory.",
        }
    )
    assert key_findings.stepped_down(cases, probes) == [
        "parallel/threads: stepped down from medium to small at request clip-03: CUDA out of "
        "memory; no request was lost."
    ]
    assert key_findings.stepped_down(cases, probes.iloc[:0]) == []
    without = key_findings.race(CASES, trials(0.5))
    assert key_findings.race(CASES, trials(0.5), probes.iloc[:0]) == without


def test_lost_cases_of_one_name_share_a_sentence() -> None:
    lost = pd.DataFrame(
        {
            "experiment": "soak",
            "strategy": ["sequential", "sequential", "swapping", "swapping"],
            "mitigation": "restart",
            "status": ["invalid", "invalid", "invalid", "ok"],
            "reason": ["a stranger", "another", "a third", ""],
        }
    )
    assert key_findings.unmeasured(lost) == [
        "sequential, remedy restart was not measured (invalid, 2 cases): a stranger.",
        "swapping, remedy restart was not measured (invalid): a third.",
    ]


def test_an_edge_that_nobody_asked_for_is_no_fault() -> None:
    """A preset may leave it out; the rows of other cases then have no such columns."""
    others = pd.DataFrame({"case_id": ["a"], "experiment": "soak", "status": "ok"})
    cases, probes = others[others["experiment"] == "memory_limits"], pd.DataFrame()
    assert key_findings.edge(cases, probes) == []
    assert key_findings.attention(cases, probes) == []
    assert tables.edge_table(cases, probes).empty
    assert figures.survival(probes, cases).axes == []
