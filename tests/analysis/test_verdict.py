"""Verdicts on synthetic tables whose answers are known by construction."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest
from pydantic import Field

from hybridlab import catalog
from hybridlab.analysis import verdict
from hybridlab.analysis.arms import standings
from hybridlab.analysis.claims import claims_file, evidence, rules
from hybridlab.analysis.claims.claims_file import CLAIMS_FILE, Claim, load_claims
from hybridlab.analysis.claims.evidence import ClaimResult
from hybridlab.analysis.pick import pick
from hybridlab.analysis.recommendation import Requirements, recommend
from hybridlab.errors import ParameterError
from hybridlab.reporting import figures
from hybridlab.reporting.findings import pareto_front
from hybridlab.results.schema import TABLES, required_columns
from hybridlab.units import GB, GIB, MIB, format_bytes

VERDICTS = {"supported", "refuted", "inconclusive", "not testable here"}
T4_CAPACITY = int(14.56 * GIB)
#: Five requests of different length, so that only paired comparison is precise.
BASE_S = (0.40, 0.41, 0.80, 1.20, 0.42)


CLAIMS = load_claims()
DOCUMENT = (
    Path(claims_file.__file__).with_name("analysis.md").read_text(encoding="utf-8").splitlines()
)


class Rows:
    """Builds a run's tables row by row."""

    def __init__(self, *, device: str = "cpu", full_size: bool = False, weights: str = "") -> None:
        self.device = device
        self.pair = {
            "llm_model": "mini-3b" if full_size else "pocket",
            "llm_weights": weights or ("random" if full_size else "pocket"),
            "llm_dtype": "float16" if full_size else "float32",
            "asr_model": "medium" if full_size else "pocket-m",
            "asr_backend": "transformers",
            "asr_weights": weights or ("random" if full_size else "pocket"),
            "asr_dtype": "float16" if full_size else "float32",
        }
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}

    def add(self, table: str, **values: Any) -> None:
        empty = dict.fromkeys([*required_columns(table)])
        self.rows[table].append({**empty, "device": self.device, "memory_limited": False, **values})

    def case(self, case_id: str, experiment: str, **values: Any) -> None:
        about = {"case_id": case_id, "experiment": experiment, "status": "ok", "reason": ""}
        peaks = [
            values[f"{at}_peak_bytes"] for at in ("load", "request") if f"{at}_peak_bytes" in values
        ]
        memory = {"process_baseline_bytes": 0, "capacity_bytes": T4_CAPACITY}
        memory |= {"peak_bytes": max(peaks, default=None)}
        self.add("cases", **{"notebook": "02", **self.pair, **about, **memory, **values})

    def arm(
        self,
        strategy: str,
        variant: str,
        notebook: str,
        *,
        factor: float = 1.0,
        peak: float = 10 * GIB,
        output_matches_reference: bool | None = True,
        requests: Sequence[float] = BASE_S,
        audio_s: float = 30.0,
        rounds: int = 5,
        noise: float = 0.0,
        **values: Any,
    ) -> None:
        """Rounds of an arm; each is 1 % slower than the one before for all arms, and `noise` is how
        much slower or faster one case of this arm is than another."""
        rng = np.random.default_rng(len(self.rows["cases"]))
        for number in range(rounds):
            name = f"{notebook}-{strategy}-{variant}-r{number}"
            case = 1 + noise * rng.normal()
            memory = {"load_peak_bytes": peak - MIB, "request_peak_bytes": peak}
            where = {"notebook": notebook, "strategy": strategy, "variant": variant}
            rate = {"throughput_rps": 1 / factor, "margin_bytes": T4_CAPACITY - peak}
            rate["round"] = number
            self.case(name, "strategy_comparison", **{**where, **memory, **rate, **values})
            for index, seconds in enumerate([9.0, *requests]):
                self.add(
                    "trials",
                    **where,
                    case_id=name,
                    experiment="strategy_comparison",
                    request_id="first" if index == 0 else f"q{index}",
                    latency_s=seconds * factor * case * (1 + 0.01 * number),
                    is_first_request=index == 0,
                    output_matches_reference=None if index == 0 else output_matches_reference,
                    audio_s=audio_s,
                )

    def spans(
        self, *, of: str = "", start_s: float = 1.0, spread: float = 0.0, **seconds: float
    ) -> None:
        """The time of each model in every request that was served, or those of one strategy: the
        same, or in every other case `spread` longer and shorter."""
        for number, trial in enumerate(self.rows["trials"]):
            if of and trial["strategy"] != of:
                continue
            where = {name: trial[name] for name in ("case_id", "notebook", "request_id")}
            for role, duration in seconds.items():
                end_s = start_s + duration + spread * (-1) ** (number // 6)
                self.add("spans", **where, role=role, phase="decode", start_s=start_s, end_s=end_s)

    def ageing(self, mitigation: str, *, growth: int) -> None:
        self.case(f"age-{mitigation}", "soak", mitigation=mitigation, notebook="03")
        for cycle in range(41):
            self.add(
                "cycles",
                case_id=f"age-{mitigation}",
                notebook="03",
                device=self.device,
                strategy="sequential",
                mitigation=mitigation,
                cycle=cycle,
                allocated_bytes=8 * GIB,
                reserved_bytes=9 * GIB + growth * cycle + (cycle % 3) * MIB,
            )

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        found = {}
        for name, rows in self.rows.items():
            columns = [*required_columns(name), "notebook"]
            found[name] = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
        return found


def race(**options: Any) -> Rows:
    """Swapping: least memory and slowest. Parallel: most memory and fastest."""
    rows = Rows(**options)
    rows.arm("sequential", "plain", "04")
    # 05 ran on a machine that had become twice as slow: only ratios may count
    rows.arm("sequential", "plain", "05", factor=2.0)
    rows.arm("parallel", "threads", "05", factor=2.0 * 0.7, peak=11 * GIB)
    rows.arm("sequential", "plain", "06")
    rows.arm("swapping", "reload-cached", "06", factor=3.0, peak=8 * GIB)
    return rows


def judged(rows: Rows, claims: list[Claim] = CLAIMS, **place: Any) -> dict[str, dict[str, Any]]:
    where = {"device": rows.device, "card": None, **place}
    return {row["claim"]: row for row in verdict.judge(claims, rows.tables, **where)}


def recommended(rows: Rows, constraints: Requirements | None = None) -> Any:
    tables = rows.tables
    return recommend(tables["cases"], tables["trials"], constraints)


# ------------------------------------------------------------------------------------ the file


def test_every_claim_is_unique_and_judged_even_without_rows() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids) >= 20
    assert {claim.rule.test for claim in CLAIMS} == set(rules.RULES)
    rows = verdict.judge(CLAIMS, {}, device="cpu", card=None)
    assert [row["claim"] for row in rows] == ids
    for row in rows:
        assert row["verdict"] in VERDICTS
        assert row["reason"]
        assert {"claim", "expected", "measured", "verdict", "reason"} <= set(row)


def test_the_document_is_as_it_was_written() -> None:
    """No formatter's: its trailing spaces and columns of comments are its own."""
    text = Path(claims_file.__file__).with_name("analysis.md").read_bytes()
    digest = "8c12c1a7f45c0bb058278007eceb2bf63352d2e7e867122c26d15d151eb90690"
    assert hashlib.sha256(text).hexdigest() == digest


def test_quotations_stand_in_the_document() -> None:
    for claim in CLAIMS:
        assert claim.line is not None
        assert claim.quote in DOCUMENT[claim.line - 1], claim.id


def test_every_figure_of_the_document_is_judged() -> None:
    """Each line with bytes, seconds or a share of something, where it says them first."""
    repeated = {
        *(23, 33, 43),  # Voxtral's 9.6 GB of line 6
        *(25, 35, 45),  # the 0.5 GB of line 8
        *(117, 121),  # the 3 s and 25 s of lines 83 and 86
    }
    figure = re.compile(r"\d\s?(GB|%|s\b|seconds)")
    told = {number for number, line in enumerate(DOCUMENT, 1) if figure.search(line)}
    assert told - {claim.line for claim in CLAIMS} == repeated


def test_a_rule_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", known := dict(rules.RULES))
    for module in (claims_file, verdict):
        monkeypatch.setattr(module, "RULES", known)

    @rules.rule("most-cases", predict=lambda run, card, *, most: f"predicted {most} on {card.name}")
    def most_cases(run: evidence.RunData, *, most: Annotated[int, Field(gt=0)]) -> ClaimResult:
        few = len(run.cases) <= most
        return run.result(evidence.supported_if(few), "counted", measured=f"{len(run.cases)}")

    path = tmp_path / "claims.yaml"
    path.write_text(_claim_yaml(rule="{test: most-cases, most: 25}"), encoding="utf-8")
    row = judged(race(), load_claims(path))["a"]
    assert (row["verdict"], row["measured"]) == ("supported", "25")
    assert row["reason"] == "counted, on the CPU with pocket weights"
    path.write_text(path.read_text().replace("needs: {}", "needs: {card: l4}"), encoding="utf-8")
    row = judged(race(), load_claims(path))["a"]
    assert (row["verdict"], row["measured"]) == ("not testable here", "predicted 25 on l4")
    path.write_text(_claim_yaml(rule="{test: most-cases, most: 0}"), encoding="utf-8")
    with pytest.raises(ParameterError, match=r"claim a\.rule\.most-cases\.most = 0"):
        load_claims(path)


def test_claims_are_found_from_below_the_project_and_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / CLAIMS_FILE
    own.parent.mkdir()
    own.write_text(_claim_yaml(id="mine"), encoding="utf-8")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert [claim.id for claim in load_claims()] == ["mine"]
    own.unlink()
    assert len(load_claims()) > 1  # the project's own, beside the package


def _claim_yaml(*, id: str = "a", rule: str = "{test: growth}", more: str = "", n: int = 1) -> str:
    claim = (
        f"  - {{id: {id}, quote: s, kind: soak, expected: e, supported_if: s, refuted_if: r, "
        f"needs: {{}}, rule: {rule}{more}}}\n"
    )
    return "claims:\n" + n * claim


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("claims: [", "not YAML"),
        ("", "claims = "),
        ("- a", "not a list"),
        ("claims: []", "claims"),
        (_claim_yaml(more=", colour: red"), "claim a.colour"),
        (_claim_yaml(rule="{test: guess}"), "claim a.rule"),
        (_claim_yaml(rule="{test: growth, speed: 3}"), "speed"),
        (_claim_yaml(n=2), "'a' stands twice"),
        (_claim_yaml().replace("needs: {}", "needs: {card: t5}"), "choose one of: t4"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=said) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"none.yaml' cannot be read"):
        load_claims(tmp_path / "none.yaml")


# ---------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("claim", "said", "measured"),
    [
        ("t4-memory", "supported", "15.63 GB, which are 14.56 GiB"),
        ("voxtral-share", "refuted", "64.0 %"),
        ("available-sum", "refuted", "15.2 GB"),
        ("available-share", "refuted", "37.3 %"),
        ("card-sum", "refuted", "15.7 GB"),
        ("option-a-sum", "supported", "12.6 GB"),
        ("option-a-share", "supported", "84.0 %"),
        ("option-b-sum", "supported", "14.1 GB"),
        ("option-b-share", "supported", "94.0 %"),
        ("option-c-sum", "supported", "11.6 GB"),
        ("option-c-share", "refuted", "77.3 %"),
        ("sequential-sum", "supported", "28 s"),
        ("package-name", "refuted", "openai-whisper"),
        ("cpu-memory-test", "refuted", "2.85 GiB in float32, 1.42 GiB in float16"),
    ],
)
def test_arithmetic_needs_no_rows(claim: str, said: str, measured: str) -> None:
    row = judged(Rows())[claim]
    assert (row["verdict"], row["measured"]) == (said, measured)


# ------------------------------------------------------------------------------ not testable here


def test_a_cpu_speaks_of_no_t4_and_of_no_cuda_allocator() -> None:
    rows = race()
    rows.ageing("none", growth=10 * MIB)
    found = judged(rows)
    for claim in CLAIMS:
        if claim.needs.cuda:
            assert found[claim.id]["verdict"] == "not testable here", claim.id
    for name in (
        "medium-fits",
        "large-v3-fits",
        "option-c-total",
        "parallel-memory",
        "voxtral-25s",
    ):
        assert found[name]["measured"].startswith("predicted")
    assert "cpu" in found["fragmentation-grows"]["reason"]


def test_another_card_does_not_speak_for_a_t4() -> None:
    rows = race(device="cuda:0", full_size=True, weights="hub")
    found = judged(rows, card="h200")
    assert found["sequential-28s"]["verdict"] == "not testable here"
    assert found["swapping-lowest-memory"]["verdict"] == "supported"
    assert "H200" in found["swapping-lowest-memory"]["reason"]


def test_a_card_that_was_only_asked_for_does_not_count() -> None:
    rows = Rows(device="cuda:0", full_size=True, weights="hub")
    rows.case("big", "co_residency", capacity_bytes=int(139 * GIB))
    rows.case("capped", "co_residency", memory_limited=True)
    assert judged(rows, card="t4")["medium-fits"]["verdict"] == "not testable here"


def test_the_pocket_pair_says_nothing_of_released_weights() -> None:
    found = judged(race(device="cuda:0"), card="t4")
    assert found["quality-order"]["verdict"] == "not testable here"
    assert "full-size" in found["quality-order"]["reason"]
    random = race(device="cuda:0", full_size=True)
    reason = judged(random, card="t4")["quality-order"]["reason"]
    assert "released weights" in reason


# -------------------------------------------------------------------------------------- strategies


def test_order_claims_hold_on_the_runs_own_device() -> None:
    found = judged(race())
    for claim in ("swapping-lowest-memory", "swapping-highest-latency", "swapping-reload-cost"):
        assert found[claim]["verdict"] == "supported", found[claim]
        assert "the CPU with pocket weights" in found[claim]["reason"]
        assert found[claim]["basis"]


def test_the_labs_own_ways_do_not_decide_the_claims() -> None:
    """Batches wait longest, an arena swaps without a reload: the analysis spoke of neither."""
    rows = race()
    rows.arm("sequential", "batched", "04", factor=9.0, peak=30 * GIB)
    rows.arm("swapping", "single-buffer", "06", factor=0.9, peak=30 * GIB)
    found = judged(rows)
    for claim in ("swapping-lowest-memory", "swapping-highest-latency", "swapping-reload-cost"):
        assert found[claim]["verdict"] == "supported", found[claim]


def test_order_claims_are_refuted() -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", peak=12 * GIB)
    rows.arm("parallel", "threads", "05", factor=2.0, peak=11 * GIB)
    rows.arm("sequential", "plain", "06", peak=12 * GIB)
    rows.arm("swapping", "reload-cached", "06", factor=0.5, peak=11.5 * GIB)
    found = judged(rows)
    for claim in ("swapping-lowest-memory", "swapping-highest-latency", "swapping-reload-cost"):
        assert found[claim]["verdict"] == "refuted", found[claim]
    reason = found["swapping-lowest-memory"]["reason"]
    assert reason.startswith("parallel/threads is smaller than swapping/reload-cached")


def test_order_claims_stay_open_where_rows_are_missing_few_or_alike() -> None:
    missing = Rows()
    missing.arm("sequential", "plain", "04")
    few, alike = Rows(), Rows()
    for strategy, variant in (
        ("sequential", "plain"),
        ("parallel", "threads"),
        ("swapping", "reload-cached"),
    ):
        few.arm(strategy, variant, "04", rounds=4)
        alike.arm(strategy, variant, "04")
    said_of = (
        (missing, "no race of parallel"),
        (few, "with 5 good rounds"),
        (alike, "no difference"),
    )
    for rows, said in said_of:
        row = judged(rows)["swapping-lowest-memory"]
        assert row["verdict"] == "inconclusive"
        assert said in row["reason"]


def test_a_fast_wrong_answer_is_left_out() -> None:
    rows = race()
    rows.arm("swapping", "wrong", "06", factor=0.1, peak=20 * GIB, output_matches_reference=False)
    assert judged(rows)["swapping-lowest-memory"]["verdict"] == "supported"
    found = recommended(rows)
    assert found.strategy == "parallel"


@pytest.mark.parametrize(
    ("steady", "whisper", "said"),
    [
        (12 * GIB, 3 * GIB, "supported"),
        (9 * GIB, 3 * GIB, "refuted"),
        (10.7 * GIB, 3 * GIB, "inconclusive"),
        (10 * GIB, 0.1 * GIB, "inconclusive"),
    ],
)
def test_sequential_holds_both_models_or_one(steady: float, whisper: float, said: str) -> None:
    rows = Rows()
    held: dict[str, Any] = {"llm_weights_bytes": 9 * GIB, "asr_weights_bytes": whisper}
    rows.arm("sequential", "plain", "04", idle_bytes=steady, **held)
    assert judged(rows)["sequential-both-loaded"]["verdict"] == said


@pytest.mark.parametrize(
    ("failed", "said"),
    [("parallel", "supported"), ("sequential", "refuted"), ("", "inconclusive")],
)
def test_oom_risk_counts_failures(failed: str, said: str) -> None:
    rows = race()
    if failed:
        variant = "threads" if failed == "parallel" else "plain"
        about = {"strategy": failed, "variant": variant, "notebook": "05", "status": "oom"}
        for number in range(20):
            rows.case(f"oom-{number}", "strategy_comparison", round=number, **about)
    assert judged(rows)["parallel-oom-risk"]["verdict"] == said


@pytest.mark.parametrize(
    ("factor", "said"), [(0.6, "supported"), (1.0, "refuted"), (0.69, "inconclusive")]
)
def test_full_speed_is_the_slower_models_time(factor: float, said: str) -> None:
    rows = Rows(device="cuda:0")
    rows.arm("sequential", "plain", "05", requests=[1.0] * 5)
    rows.spans(llm=0.63, asr=0.37)
    rows.arm("parallel", "threads", "05", factor=factor, requests=[1.0] * 5)
    row = judged(rows, card="l4")["parallel-limited-by-voxtral"]
    assert row["verdict"] == said, row


@pytest.mark.parametrize(
    ("llm_s", "said"), [(0.63, "supported"), (0.8, "refuted"), (0.7, "inconclusive")]
)
def test_own_speed_is_each_models_time_alone(llm_s: float, said: str) -> None:
    rows = Rows(device="cuda:0")
    rows.arm("sequential", "plain", "05")
    rows.spans(llm=0.63, asr=0.37)
    rows.arm("parallel", "threads", "05")
    rows.spans(of="parallel", llm=llm_s, asr=0.37, spread=0.02 if said == "inconclusive" else 0)
    row = judged(rows, card="l4")["parallel-own-cores"]
    assert row["verdict"] == said, row


@pytest.mark.parametrize(("asr_start_s", "said"), [(1.5, "supported"), (1.4, "refuted")])
def test_models_take_turns_or_are_at_work_together(asr_start_s: float, said: str) -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "04")
    assert judged(rows)["one-at-a-time"]["verdict"] == "inconclusive"
    rows.spans(llm=0.5)
    rows.spans(asr=0.5, start_s=asr_start_s)
    assert judged(rows)["one-at-a-time"]["verdict"] == said


def test_processes_and_batches_against_models_that_switch() -> None:
    rows = race()
    found = judged(rows)
    for claim in ("processes-help", "batching-helps", "separate-containers"):
        assert found[claim]["verdict"] == "inconclusive"
    rows.arm("parallel", "processes", "05", factor=2.0 * 0.6)
    rows.arm("parallel", "single-container", "05", factor=2.0 * 0.8)
    rows.arm("parallel", "separate-containers", "05", factor=2.0 * 0.9)
    rows.arm("sequential", "batched", "04", factor=5.0)
    found = judged(rows)
    assert found["processes-help"]["verdict"] == "supported"
    assert found["separate-containers"]["verdict"] == "refuted"
    assert found["batching-helps"]["verdict"] == "refuted"


# -------------------------------------------------------------------------- bytes, fits, times


def test_footprints_are_read_as_gb_and_as_gib() -> None:
    rows = Rows(device="cuda:0", full_size=True)
    peaks = {"idle_bytes": 9.35 * GB, "request_peak_bytes": 9.9 * GB}
    rows.case("reference", "baseline", **peaks, asr_model=None, asr_weights=None)
    for size, weights in (("large-v3", 6.17 * GB), ("medium", 3.06 * GB), ("base", 0.29 * GB)):
        backend = {"asr_backend": "openai-whisper", "asr_dtype": "float32"}
        rows.case(size, "co_residency", asr_model=size, asr_weights_bytes=weights, **backend)
    found = judged(rows, card="h100")
    assert found["voxtral-memory"]["verdict"] == "supported"
    assert "GB" in found["voxtral-memory"]["reason"]
    assert found["large-v3-memory"]["verdict"] == "refuted"
    assert found["medium-memory"]["verdict"] == "supported"
    assert "GB for openai-whisper float32" in found["medium-memory"]["reason"]
    assert found["base-memory"]["verdict"] == "refuted"
    for option in ("option-a-whisper", "option-b-whisper", "option-c-whisper"):
        assert found[option]["verdict"] == "refuted"
    assert found["base-most-room"]["verdict"] == "supported"
    half = {"asr_backend": "transformers", "asr_dtype": "float16", "asr_weights_bytes": 3.09 * GB}
    rows.case("half", "co_residency", asr_model="large-v3", **half)
    assert judged(rows, card="h100")["large-v3-memory"]["verdict"] == "supported"


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (("ok", "ok"), "supported"),
        (("oom", "oom"), "refuted"),
        (("ok", "oom"), "inconclusive"),
        (("skipped", "skipped"), "refuted"),
        (("ok", "skipped"), "inconclusive"),
        (("invalid", "crashed"), "inconclusive"),
    ],
)
def test_a_whisper_fits_per_backend(statuses: tuple[str, str], said: str) -> None:
    """What the planner saw no room for does not fit."""
    rows = Rows(device="cuda:0", full_size=True)
    for backend, status in zip(("transformers", "openai-whisper"), statuses, strict=True):
        about = {"asr_model": "large-v3", "asr_backend": backend, "status": status}
        peaks = {"load_peak_bytes": 12e9, "request_peak_bytes": 13e9}
        rows.case(backend, "co_residency", **about, **peaks, predicted_bytes=18e9)
    found = judged(rows, card="t4")
    assert found["large-v3-fits"]["verdict"] == said
    if "ok" in statuses:
        assert "13.00 of 15.63 GB in use" in found["large-v3-fits"]["measured"]
    risk = "supported" if {"oom", "skipped"} & {*statuses} else "refuted"
    if "invalid" not in statuses:
        assert found["option-b-oom-risk"]["verdict"] == risk


@pytest.mark.parametrize(
    ("in_use_gb", "said"),
    [((14.1, 13.6), "supported"), ((14.1, 13.0), "inconclusive"), ((13.0, 12.0), "refuted")],
)
def test_a_stated_total_is_what_is_judged(in_use_gb: tuple[float, float], said: str) -> None:
    rows = Rows(device="cuda:0", full_size=True)
    for n, in_use in enumerate(in_use_gb):
        about = {"asr_model": "large-v3", "margin_bytes": T4_CAPACITY - in_use * GB}
        rows.case(f"case-{n}", "co_residency", asr_dtype=f"kind-{n}", **about)
    found = judged(rows, card="t4")
    assert found["large-v3-fits"]["verdict"] == "supported"
    assert found["option-b-total"]["verdict"] == said, found["option-b-total"]


def test_bytes_in_use_are_all_of_the_card() -> None:
    rows = Rows(device="cuda:0", full_size=True)
    idle = {"idle_bytes": 9.4 * GB, "external_bytes": 0.2 * GB}
    rows.arm("sequential", "plain", "04", peak=12.5 * GB)
    rows.arm("parallel", "threads", "05", peak=11.0 * GB)
    rows.arm("swapping", "reload-cached", "06", peak=12.6 * GB, **idle)
    found = judged(rows, card="t4")
    verdicts = {
        "sequential-memory": "supported",
        "parallel-memory": "refuted",
        "swapping-peak": "supported",
        "swapping-steady": "supported",
    }
    assert {name: found[name]["verdict"] for name in verdicts} == verdicts


@pytest.mark.parametrize(("outside_gb", "said"), [(0.5, "supported"), (0.13, "refuted")])
def test_overhead_is_what_lies_outside_torch(outside_gb: float, said: str) -> None:
    rows = Rows(device="cuda:0", full_size=True)
    rows.case("base", "co_residency", external_bytes=outside_gb * GB)
    assert judged(rows, card="t4")["overhead-memory"]["verdict"] == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(28.0, "supported"), (6.0, "refuted"), (22.4, "inconclusive")]
)
def test_a_time_on_a_t4_is_judged_on_a_t4(seconds: float, said: str) -> None:
    rows = Rows(device="cuda:0", full_size=True, weights="hub")
    requests = [seconds * (1 + share) for share in (-0.01, 0.0, 0.0, 0.01, 0.02)]
    rows.arm("sequential", "plain", "04", requests=requests)
    rows.spans(llm=25 * seconds / 28, asr=3 * seconds / 28)
    found = judged(rows, card="t4")
    assert found["sequential-28s"]["verdict"] == said, found["sequential-28s"]
    if said == "supported":
        assert found["voxtral-25s"]["verdict"] == found["whisper-3s"]["verdict"] == "supported"
    short = Rows(device="cuda:0", full_size=True, weights="hub")
    short.arm("sequential", "plain", "04", requests=requests, audio_s=5.0)
    assert judged(short, card="t4")["sequential-28s"]["verdict"] == "inconclusive"


# ---------------------------------------------------------------------------- ageing and quality


@pytest.mark.parametrize(
    ("plain", "cured", "growth", "cure"),
    [
        (10 * MIB, 0, "supported", "supported"),
        (10 * MIB, 10 * MIB, "supported", "refuted"),
        (0, 0, "refuted", "inconclusive"),
    ],
)
def test_fragmentation_is_growth_of_idle_reserved_bytes(
    plain: int, cured: int, growth: str, cure: str
) -> None:
    rows = Rows(device="cuda:0")
    rows.ageing("none", growth=plain)
    rows.ageing("empty-cache", growth=cured)
    found = judged(rows, card="t4")
    assert found["fragmentation-grows"]["verdict"] == growth
    assert found["empty-cache-cures"]["verdict"] == cure
    assert found["restart-cures"]["verdict"] == "inconclusive"


def test_allocated_bytes_alone_do_not_show_fragmentation() -> None:
    rows = Rows(device="cuda:0")
    rows.ageing("none", growth=10 * MIB)
    for row in rows.rows["cycles"]:
        del row["reserved_bytes"]
    row = judged(rows)["fragmentation-grows"]
    assert row["verdict"] == "inconclusive"
    assert "no reserved bytes" in row["reason"]


@pytest.mark.parametrize(
    ("wrong", "n", "said"),
    [
        ({"large-v3": 0, "medium": 1, "base": 2}, 6, "supported"),
        ({"large-v3": 2, "medium": 1, "base": 0}, 6, "refuted"),
        ({"large-v3": 1, "medium": 1, "base": 1}, 6, "inconclusive"),
        ({"large-v3": 0, "medium": 1, "base": 2}, 1, "inconclusive"),
    ],
)
def test_quality_is_an_order_of_word_error_rates(wrong: dict[str, int], n: int, said: str) -> None:
    rows = Rows(full_size=True, weights="hub")
    words = ["one", "two", "three", "four", "five"]
    for size, errors in wrong.items():
        rows.case(size, "quality", asr_model=size)
        text = " ".join(["nought"] * errors + words[errors:])
        for number in range(n):
            about = {"case_id": size, "notebook": "02", "clip_id": f"q{number}"}
            rows.add("trials", **about, transcript=text, reference=" ".join(words))
    assert judged(rows)["quality-order"]["verdict"] == said


@pytest.mark.parametrize(
    ("rtfx", "said"),
    [
        ({"base": 60, "medium": 20, "large-v3": 10}, "supported"),
        ({"base": 10, "medium": 20, "large-v3": 5}, "refuted"),
        ({"base": 20, "medium": 20, "large-v3": 5}, "inconclusive"),
    ],
)
def test_speed_is_an_order_of_real_time_factors(rtfx: dict[str, float], said: str) -> None:
    rows = Rows(full_size=True)
    for size, factor in rtfx.items():
        for number in range(6):
            rows.case(f"{size}-{number}", "quality", asr_model=size)
            about = {"case_id": f"{size}-{number}", "notebook": "02", "request_id": "q"}
            rows.add("trials", **about, rtfx=factor * (1 + number / 100))
    assert judged(rows)["base-fastest"]["verdict"] == said


# -------------------------------------------------------------------------------- recommendation


def test_the_winner_is_the_fastest_against_its_own_control() -> None:
    rows = race()
    found = recommended(rows)
    # in raw seconds parallel is slower than sequential of 04; its notebook was slow as a whole
    assert (found.strategy, found.variant, found.tie) == ("parallel", "threads", False)
    assert found.relative == pytest.approx(0.7, rel=0.01)
    assert (found.n, found.few) == (5, False)
    assert found.runner_up == "sequential/plain"
    assert "slower" in found.why_not
    assert "95 % interval" in found.why
    goals = {goal.goal: goal for goal in found.goals}
    assert {name: goal.arm for name, goal in goals.items()} == {
        "lowest latency": "parallel/threads",
        "highest throughput": "parallel/threads",
        "safest margin": "swapping/reload-cached",
    }
    assert all(goal.runner_up and goal.runner_up != goal.arm for goal in found.goals)
    assert goals["safest margin"].figure == "6.56 GiB to spare"
    assert "Whisper pocket-m (transformers" in found.pair


def test_a_tie_goes_to_the_smaller_peak() -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", peak=9 * GIB)
    rows.arm("parallel", "threads", "05", factor=0.99, noise=0.05, peak=11 * GIB)
    found = recommended(rows)
    assert found.tie
    assert found.strategy == "sequential"
    assert "tie" in found.why_not
    assert "2.00 GiB higher" in found.why_not


@pytest.mark.parametrize("status", ["oom", "crashed", "timeout"])
def test_one_failure_in_any_round_bars_an_arm(status: str) -> None:
    rows = race()
    about = {"strategy": "parallel", "variant": "threads", "notebook": "05"}
    rows.case("lost", "strategy_comparison", **about, status=status, round=5)
    found = recommended(rows)
    assert (found.strategy, found.variant) == ("sequential", "plain")
    words = {"oom": "out of memory", "crashed": "crashed", "timeout": "timed out"}[status]
    assert found.barred == (f"parallel/threads, {words} in 1 of 6 cases",)
    assert f"Barred: {found.barred[0]}." in found.notes
    lowest = judged(rows)["swapping-lowest-memory"]
    assert lowest["verdict"] == "inconclusive"  # nothing is left of parallel


def test_one_other_text_in_any_round_bars_an_arm() -> None:
    rows = race()
    texts = [row for row in rows.rows["trials"] if row["strategy"] == "parallel"]
    texts[-1]["output_matches_reference"] = False
    found = recommended(rows)
    assert found.strategy == "sequential"
    assert found.barred == ("parallel/threads, other words than alone in 1 of 5 cases",)


def test_unchecked_texts_and_lost_rounds_stand_first() -> None:
    rows = race()
    for row in rows.rows["trials"]:
        if row["case_id"] == "05-parallel-threads-r0":
            row["output_matches_reference"] = None
    assert recommended(rows).strategy == "sequential"  # all of its texts were checked
    for row in rows.rows["trials"]:
        row["output_matches_reference"] = None
    found = recommended(rows)
    assert found.why.startswith("texts unchecked in 5 of 5 cases; lowest latency")
    rows = race()
    about = {"strategy": "parallel", "variant": "threads", "notebook": "05"}
    rows.case("lost", "strategy_comparison", **about, status="invalid", round=5)
    found = recommended(rows)
    assert found.why.startswith("1 of 6 cases lost; lowest latency")
    answer = verdict.answer_sentence(rows.tables["cases"], found, device="cpu")
    assert "1 of 6 cases lost: parallel/threads is the fastest" in answer


def test_an_arm_of_one_round_is_not_preferred_to_one_of_five() -> None:
    rows = race()
    rows.arm("parallel", "processes", "05", factor=0.1, rounds=1)
    found = recommended(rows)
    assert found.variant == "threads"
    few = Rows()
    few.arm("sequential", "plain", "04", rounds=2)
    few.arm("sequential", "plain", "05", rounds=2)
    few.arm("sequential", "plain", "06", rounds=2)
    few.arm("parallel", "threads", "05", factor=0.5, rounds=2)
    found = recommended(few)
    assert (found.variant, found.few, found.tie) == ("threads", True, False)
    assert "so far, in fewer than the 5 rounds" in found.why
    assert {goal.how_sure for goal in found.goals} == {"too few rounds to tell"}
    assert math.isnan(found.selection_instability)


def test_what_is_recommended_has_a_whisper() -> None:
    rows = race()
    rows.arm("solo", "shared-prefix", "04", factor=0.4, peak=7 * GIB)
    found = recommended(rows)
    assert found.strategy == "parallel"
    assert found.alone.startswith("solo/shared-prefix, median")
    assert all("solo" not in goal.arm + goal.runner_up for goal in found.goals)
    only = Rows()
    only.arm("solo", "shared-prefix", "04")
    assert recommended(only) is None


def test_ties_are_said_as_ties() -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", noise=0.05)
    for variant in ("threads", "processes"):
        rows.arm("parallel", variant, "05", noise=0.05)
    goals = {goal.goal: goal for goal in recommended(rows).goals}
    assert goals["lowest latency"].how_sure.startswith("a tie with ")
    assert goals["safest margin"].how_sure.startswith("a tie with ")


def test_claims_judged_at_once_must_be_clearer() -> None:
    near = [ClaimResult(verdict="supported", reason="so", chance=0.04)]
    sure = ClaimResult(verdict="refuted", reason="not so", chance=0.001)
    assert [one.verdict for one in verdict.together(near)] == ["supported"]
    both = verdict.together([*near, sure, ClaimResult(verdict="supported", reason="a sum")])
    assert [one.verdict for one in both] == ["supported", "refuted", "supported"]
    open_one = ClaimResult(verdict="inconclusive", reason="unclear", chance=0.7)
    many = verdict.together([*near, sure, open_one])
    assert [one.verdict for one in many] == ["inconclusive", "refuted", "inconclusive"]
    assert "3 claims are judged at once: so" in many[0].reason


def test_what_is_left_out_of_a_verdict_is_named() -> None:
    rows = race()
    rows.arm("sequential", "batched", "04", peak=7 * GIB)
    rows.arm("parallel", "processes", "05", factor=2.0, rounds=1)
    reason = judged(rows)["swapping-lowest-memory"]["reason"]
    assert "judged without parallel/processes (1 cases), sequential/batched" in reason


def test_an_arm_without_enough_margin_is_not_recommended() -> None:
    rows = race()
    found = recommended(rows, Requirements(min_margin_bytes=4 * GIB))
    assert found.strategy == "sequential"
    # whatever says no words that could be judged does not keep a limit on their errors
    for asked in ({"min_margin_bytes": 100 * GIB}, {"max_p95_s": 1e-6}, {"max_wer": 0.5}):
        assert recommended(rows, Requirements(**asked)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "selection_instability"), [(0.5, False), (0.9999, True)])
def test_the_choice_flips_where_arms_are_alike(factor: float, selection_instability: bool) -> None:
    rows = Rows()
    rows.arm("sequential", "plain", "05", peak=9 * GIB)
    rows.arm("parallel", "threads", "05", factor=factor, noise=0.05, peak=9 * GIB)
    found = recommended(rows)
    assert (found.selection_instability > 0.05) == selection_instability
    assert "drawn again" in found.notes[0]


def test_the_front_holds_whatever_nobody_beats_in_both() -> None:
    rows = Rows()
    for variant, factor, peak in (("a", 0.5, 9), ("b", 0.8, 7), ("c", 0.9, 8), ("d", 1.5, 6)):
        rows.arm("parallel", variant, "05", factor=factor, peak=peak * GIB)
    rows.arm("sequential", "plain", "05", peak=10 * GIB)
    arms = standings(rows.tables["cases"], rows.tables["trials"])
    assert [arm.variant for arm in pareto_front(arms)] == ["a", "b", "d"]
    figure = figures.pareto(rows.tables["cases"], rows.tables["trials"])
    title = " ".join(figure.get_suptitle().split())
    assert title.startswith("3 of 5 arms are not beaten in both: parallel/d saves 3.00 GiB")


def test_no_race_no_recommendation() -> None:
    rows = Rows()
    assert recommended(rows) is None
    rows.case("oom", "strategy_comparison", strategy="sequential", variant="plain", status="oom")
    assert recommended(rows) is None


# ----------------------------------------------------------------------------- options and answer


def test_options_hold_or_not_per_backend_and_say_that_they_are_predicted() -> None:
    rows = Rows(device="cuda:0", full_size=True)
    rows.case("m", "co_residency", load_peak_bytes=12e9, request_peak_bytes=13e9)
    table = verdict.options_table("t4", rows.tables["cases"])
    assert {row["source"] for row in table} == {"predicted"}
    by = {(row["option"], row["asr_backend"], row["asr_dtype"]): row for row in table}
    large = by["B", "openai-whisper", "float32"]
    assert large["is_default"]
    assert not large["fits"]
    assert by["B", "transformers", "float16"]["fits"]
    assert by["C", "openai-whisper", "float32"]["fits"]
    assert large["utilization"] > 1 and large["margin_bytes"] < 0
    medium = by["A", "transformers", "float16"]
    assert (medium["measured_on"], medium["measured_peak_bytes"]) == ("cuda:0", 13e9)
    assert medium["measured"] == "ok on cuda:0, peak 12.11 GiB"
    assert by["A", "openai-whisper", "float32"]["measured_status"] is None


def test_a_combination_that_the_card_lacks_is_still_listed_when_measured() -> None:
    rows = Rows(full_size=True)
    rows.case("m", "co_residency", asr_dtype="bfloat16", request_peak_bytes=13e9)
    table = verdict.options_table("t4", rows.tables["cases"])
    measured = [row for row in table if row["measured_status"]]
    assert [(row["asr_dtype"], row["measured_on"]) for row in measured] == [("bfloat16", "cpu")]


def test_the_answer_names_device_weights_and_prediction() -> None:
    rows = race()
    found = recommended(rows)
    answer = verdict.answer_sentence(rows.tables["cases"], found, device="cpu")
    assert answer.startswith("On this CPU with the pocket pair (pocket weights), parallel/threads")
    assert "is the fastest way with a Whisper (median" in answer
    assert "n = 5 cases" in answer
    assert "on a T4 the planner picks large-v3 (transformers, float16)" in answer
    best = pick(catalog.card("t4"))
    assert best is not None
    assert f"predicted to fit with {format_bytes(best.margin_bytes)} to spare" in answer
    empty = verdict.answer_sentence(Rows().tables["cases"], None, device="cuda:0", card="h100")
    assert "H100" in empty
    assert "no way with a Whisper that nothing bars was measured" in empty


def write_parts(folder: Path, rows: Rows) -> None:
    for notebook in ("04", "05", "06"):
        part = folder / "parts" / notebook
        part.mkdir(parents=True)
        for table in ("cases", "trials"):
            own = [row for row in rows.rows[table] if row["notebook"] == notebook]
            lines = [json.dumps({**row, "notebook": None}) for row in own]
            (part / f"{table}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_verdict_is_written(tmp_path: Path) -> None:
    rows = race()
    verdict.write_verdict(tmp_path, rows.tables["cases"], recommended(rows), device="cpu")
    written = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    assert set(written) == {"answer", "recommendation", "options", "device", "card", "target"}
    assert written["recommendation"]["strategy"] == "parallel"
    assert {"pair", "strategy", "variant", "why", "runner_up", "why_not"} <= set(
        written["recommendation"]
    )
    assert len(written["options"]) >= 3 * 7


def test_an_older_verdict_is_written_anew_under_its_own_constraints(tmp_path: Path) -> None:
    assert verdict.rewrite_verdict(tmp_path) is None
    write_parts(tmp_path, race())
    asked = {"min_margin_bytes": 5 * GIB, "max_p95_s": 0.0, "max_wer": 1.0}
    manifest = tmp_path / "parts" / "06" / "manifest.json"
    manifest.write_text(json.dumps({"params": asked}), encoding="utf-8")
    old = {"recommendation": {"strategy": "swapping", "variant": "arena"}, "target": "l4"}
    (tmp_path / "verdict.json").write_text(json.dumps(old), encoding="utf-8")
    written = json.loads(verdict.rewrite_verdict(tmp_path).read_text(encoding="utf-8"))
    assert written["recommendation"]["variant"] == "reload-cached"  # the one with such a margin
    assert (written["device"], written["target"]) == ("cpu", "l4")
    assert written["options"][0]["card"] == "l4"
