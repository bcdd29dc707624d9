"""What people see of the edge and of the attention kernels, from small tables."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hybridlab.config.params import LimitsParams
from hybridlab.errors import ParameterError
from hybridlab.reporting import figures, key_findings, tables
from hybridlab.units import MIB


def edge_cases() -> pd.DataFrame:
    common = {"experiment": "memory_limits", "status": "ok", "reason": "", "variant": "plain"}
    common |= {"device": "cpu", "memory_limited": False, "asr_weights": "pocket"}
    return pd.DataFrame(
        [
            {**common, "case_id": "s", "limit_kind": "headroom", "strategy": "sequential"},
            {**common, "case_id": "w", "limit_kind": "headroom", "strategy": "swapping"},
            {
                **common,
                "case_id": "b",
                "limit_kind": "batch",
                "strategy": "sequential",
                "limit_found": 8.0,
                "limit_hit": True,
            },
            {
                **common,
                "case_id": "l",
                "limit_kind": "fallback",
                "strategy": "sequential",
                "served_by_model": "base",
                "fallbacks": 1,
            },
        ]
    )


def probes(
    sequential: tuple[int, ...] = (20, 20, 20), swapping: tuple[int, ...] = (90, 90, 90)
) -> pd.DataFrame:
    """The least MiB with which each squeezed request survives, among other probes."""
    rows = []
    for case, rooms in (("s", sequential), ("w", swapping)):
        for repeat, least in enumerate(rooms):
            for room in (least // 2, least, 2 * least):
                rows.append(
                    {
                        "case_id": case,
                        "limit_kind": "headroom",
                        "repeat": repeat,
                        "value": room * MIB,
                        "succeeded": room >= least,
                        "phase": None if room >= least else "llm prefill",
                    }
                )
    for batch in (4, 8, 16):
        alive = batch <= 8
        rows.append(
            {
                "case_id": "b",
                "limit_kind": "batch",
                "repeat": 0,
                "value": batch,
                "succeeded": alive,
                "phase": None if alive else "llm encode",
            }
        )
    rows.append({"case_id": "l", "limit_kind": "fallback", "succeeded": False, "phase": "load"})
    return pd.DataFrame(rows)


def test_the_least_room_of_each_request() -> None:
    rooms = tables.least_rooms(probes(), edge_cases())
    assert len(rooms) == 6
    found = rooms.groupby("strategy")["room_bytes"].unique()
    assert found["sequential"].tolist() == [20 * MIB]
    assert found["swapping"].tolist() == [90 * MIB]
    assert tables.least_rooms(pd.DataFrame(), edge_cases()).empty


def test_the_table_names_what_was_found_and_where_it_fails() -> None:
    table = tables.edge_table(edge_cases(), probes()).set_index(["asked", "strategy"])
    assert table.loc[("largest batch", "sequential"), "found"] == "8"
    assert table.loc[("largest batch", "sequential"), "fails in"] == "llm encode"
    assert table.loc[("fallback", "sequential"), "found"] == "base after 1 step down"
    assert table.loc[("headroom", "swapping"), "found"].startswith("90 ")


def words_of(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.findobj(lambda o: hasattr(o, "get_text"))]
    return " ".join(" ".join(texts).split())


def test_the_survival_curve_says_who_breaks_first() -> None:
    words = words_of(figures.survival(probes(), edge_cases()))
    assert "Swapping breaks first: it needs 90 MiB" in words
    assert "n = 6 requests" in words


def test_no_order_is_claimed_where_intervals_overlap() -> None:
    words = words_of(figures.survival(probes((12, 20, 30), (16, 25, 36)), edge_cases()))
    assert "breaks first" not in words
    assert (
        "Swapping needs most in the median, 25 MiB above the resident pair, but its interval "
        "overlaps that of sequential"
    ) in words


def test_sentences_follow_from_the_rows() -> None:
    sentences = key_findings.edge(edge_cases(), probes())
    assert "The largest batch that was served is 8 (sequential, 3 probes)." in sentences
    assert any(sentence.startswith("8 of 22 probes ran out") for sentence in sentences)


def attention_cases() -> pd.DataFrame:
    row = {"experiment": "attention", "status": "ok", "reason": "", "audio_s": 120.0}
    row |= {"idle_bytes": 100 * MIB, "predicted_bytes": 140 * MIB}
    lacking = {"experiment": "attention", "status": "skipped", "reason": "no such kernel"}
    return pd.DataFrame(
        [
            {**row, "case_id": "a", "attention": "auto", "request_bytes": 100 * MIB},
            {**row, "case_id": "m", "attention": "math", "request_bytes": 500 * MIB},
            {**lacking, "case_id": "e", "attention": "efficient"},
        ]
    )


def test_kernels_are_compared_with_auto() -> None:
    trials = pd.DataFrame(
        [
            {"case_id": case, "is_first_request": False, "latency_s": 0.5, "answer_tokens": tokens}
            for case, tokens in (("a", [1, 2]), ("m", [1, 3]))
        ]
    )
    table = tables.attention_table(attention_cases(), trials).set_index("attention")
    assert table.loc["math", "request MiB"] == "500"
    assert table.loc["auto", "predicted MiB"] == "40"
    assert table["same tokens"].tolist()[:2] == ["yes", "no"]
    assert table.loc["efficient", "status"] == "no such kernel"


def test_the_plan_for_a_t4_shows_the_trap() -> None:
    plan = tables.attention_plan("t4").set_index("attention")
    assert plan.loc["math", "30 min, predicted"].endswith("GiB")
    assert float(plan.loc["math", "30 min, predicted"].split()[0]) > 100
    assert float(plan.loc["expanded_kv", "30 min, predicted"].split()[0]) < 5


def test_an_envelope_must_be_a_card() -> None:
    with pytest.raises(ParameterError, match="t4"):
        LimitsParams.from_mapping({"memory_limit": "t5"})
