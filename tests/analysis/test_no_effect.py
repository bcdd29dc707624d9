"""A against A: tables of a run in which no arm differs from another, judged as the report does.

Every case has an effect of its own (5 %, heavy tails, or one of two modes of the machine), every
round and notebook another speed, every request its length and noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hybridlab.analysis.arms import ArmStats
from hybridlab.analysis.claims.claims_file import load_claims
from hybridlab.analysis.claims.evidence import RunData
from hybridlab.analysis.claims.rules import RULES
from hybridlab.analysis.differences import held_apart
from hybridlab.analysis.recommendation import select
from hybridlab.analysis.stats import student
from hybridlab.analysis.verdict import together
from hybridlab.reporting import findings
from hybridlab.units import MIB
from tests.analysis.test_verdict import Rows

TABLES = 200
ROUNDS, REQUESTS = 5, 4
ARMS = {
    "04": ("solo/shared-prefix", "sequential/plain", "sequential/batched"),
    "05": ("sequential/plain", "parallel/threads", "parallel/processes"),
    "06": ("sequential/plain", "swapping/reload-cached", "swapping/reload-from-disk"),
}
Effect = Callable[[np.random.Generator, int], Any]
#: The logarithm of what a case adds to its figures.
EFFECTS: dict[str, Effect] = {
    "5 %": lambda rng, n: rng.normal(0, 0.05, n),
    "heavy tails": lambda rng, n: 0.03 * rng.standard_t(2, n),
    "two modes": lambda rng, n: np.log(1.2) * rng.integers(0, 2, n) + rng.normal(0, 0.01, n),
}


def null_tables(rng: np.random.Generator, effect: Effect) -> dict[str, pd.DataFrame]:
    """`cases` and `trials` of 04 to 06 as a run writes them, all arms alike."""
    rows = [
        (nb, number, arm) for nb, arms in ARMS.items() for number in range(ROUNDS) for arm in arms
    ]
    cases = pd.DataFrame(rows, columns=["notebook", "round", "arm"])
    cases[["strategy", "variant"]] = cases.pop("arm").str.split("/", expand=True).to_numpy()
    about = {**Rows().pair, "experiment": "strategy_comparison", "device": "cpu", "status": "ok"}
    cases = cases.assign(
        **about, case_id=[f"c{n}" for n in range(len(cases))], memory_limited=False
    )
    cases.loc[cases["strategy"] == "solo", "asr_model"] = None
    speed = rng.normal(0, 0.2, (len(ARMS), ROUNDS))
    of_round = speed[cases["notebook"].astype(int) - 4, cases["round"]]
    slow = of_round + effect(rng, len(cases))
    peak = 500 * MIB * np.exp(rng.normal(0, 0.015, len(cases)))
    cases = cases.assign(
        throughput_rps=8 * np.exp(-of_round + effect(rng, len(cases))),
        peak_bytes=peak,
        margin_bytes=2000 * MIB - peak,
    )
    lengths = np.log(np.linspace(0.08, 0.2, REQUESTS))
    logs = slow[:, None] + lengths + rng.normal(0, 0.05, (len(cases), REQUESTS))
    trials = cases.loc[
        cases.index.repeat(REQUESTS), ["notebook", "case_id", "experiment", "strategy", "variant"]
    ].assign(
        request_id=[f"q{n}" for n in range(REQUESTS)] * len(cases),
        latency_s=np.exp(logs).ravel(),
        is_first_request=False,
        output_matches_reference=True,
        transcript=None,
        reference=None,
    )
    return {"cases": cases, "trials": trials}


ORDER_CLAIMS = [
    claim
    for claim in load_claims()
    if claim.rule.test in ("extreme", "faster") and not claim.needs.cuda
]


def verdicts(tables: dict[str, pd.DataFrame]) -> tuple[list[str], list[ArmStats]]:
    """What is said of a difference, by kind; and the arms."""
    run = RunData(tables=tables, device="cpu", card=None)
    arms, said = run.standings, []
    chosen = select(arms, pair="the pair")
    assert chosen is not None
    others = [arm for arm in arms if arm.strategy != "solo"]
    said += [] if chosen.tie or chosen.few else ["recommendation"]
    said += [goal.goal for goal in chosen.goals if goal.how_sure == "beyond all others"]
    for figure in ("latency", "throughput", "peak_bytes"):
        said += [f"{figure} of two arms"] if held_apart(others, figure) else []
    ranked = sorted(arms, key=lambda arm: arm.relative.value)
    said += ["fastest"] if "is fastest" in findings.fastest_words(ranked) else []
    said += ["most"] if "serves most" in findings.throughput_finding(arms) else []
    results = [
        RULES[claim.rule.test].evaluate(run, claim.needs, claim.rule) for claim in ORDER_CLAIMS
    ]
    for claim, found in zip(ORDER_CLAIMS, together(results), strict=True):
        said += ["a claim", claim.id] if found.verdict in ("supported", "refuted") else []
    return said, arms


@pytest.fixture(scope="module")
def told() -> tuple[Counter[str], dict[str, list[ArmStats]]]:
    """In how many of the tables a difference was told, by kind; and all arms by effect."""
    counts: Counter[str] = Counter()
    arms: dict[str, list[ArmStats]] = {name: [] for name in EFFECTS}
    for number in range(TABLES):
        name = list(EFFECTS)[number % len(EFFECTS)]
        said, own = verdicts(null_tables(np.random.default_rng(number), EFFECTS[name]))
        counts.update(set(said))
        arms[name] += own
    return counts, arms


def test_a_difference_is_told_in_at_most_one_of_twenty_tables(
    told: tuple[Counter[str], dict[str, list[ArmStats]]],
) -> None:
    counts, _ = told
    assert max(counts.values(), default=0) <= 0.05 * TABLES, counts


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_interval_of_a_ratio_holds_the_truth(
    effect: str, told: tuple[Counter[str], dict[str, list[ArmStats]]]
) -> None:
    others = [arm for arm in told[1][effect] if arm.arm != "sequential/plain"]
    ratios = [ratio for arm in others for ratio in (arm.relative, arm.rate)]
    assert len(ratios) > 600
    assert 0.92 <= np.mean([ratio.low <= 1 <= ratio.high for ratio in ratios]) <= 0.98


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_interval_of_seconds_holds_the_mean_of_cases(effect: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.log(1.2) / 2 if effect == "two modes" else 0.0
    found = [student(EFFECTS[effect](rng, ROUNDS)).interval() for _ in range(1000)]
    assert 0.92 <= np.mean([own.low <= truth <= own.high for own in found]) <= 0.98


def test_a_difference_that_is_there_is_told() -> None:
    """What never says anything is never wrong."""
    found = 0
    for number in range(20):
        tables = null_tables(np.random.default_rng(number), EFFECTS["5 %"])
        trials = tables["trials"]
        trials.loc[trials["strategy"] == "swapping", "latency_s"] *= 2
        tables["cases"].loc[tables["cases"]["strategy"] == "swapping", "peak_bytes"] *= 0.8
        said, _ = verdicts(tables)
        found += {"swapping-reload-cost", "swapping-lowest-memory"} <= set(said)
    assert found >= 18


def test_below_five_rounds_there_is_no_word() -> None:
    tables = null_tables(np.random.default_rng(0), EFFECTS["5 %"])
    tables["trials"].loc[tables["trials"]["strategy"] == "swapping", "latency_s"] *= 9
    tables = {**tables, "cases": tables["cases"][tables["cases"]["round"] < ROUNDS - 1]}
    said, arms = verdicts(tables)
    assert said == []
    assert all(np.isnan(arm.relative.low) for arm in arms if arm.arm != "sequential/plain")
    assert "too few rounds to tell" in findings.fastest_words(arms)
