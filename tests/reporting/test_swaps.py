"""Tables and sentences of swaps, from rows whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from hybridlab.reporting import figures, key_findings, labels, tables
from hybridlab.units import GB


def span(
    case_id: str, phase: str, seconds: float, n_bytes: float | None = None, request: str = "a"
) -> dict[str, object]:
    return {
        "case_id": case_id,
        "request_id": request or None,
        "role": "asr",
        "phase": phase,
        "start_s": 1.0,
        "end_s": 1.0 + seconds,
        "bytes": n_bytes,
    }


@pytest.fixture
def cases() -> pd.DataFrame:
    common = {
        "experiment": "strategy_comparison",
        "status": "ok",
        "device": "cpu",
        "memory_limited": False,
    }
    rows = [
        ("p", "sequential", "plain", None),
        ("w", "swapping", "reload-cached", None),
        ("x", "swapping", "single-buffer", 10 * GB),
    ]
    return pd.DataFrame(
        [
            {**common, "case_id": i, "strategy": s, "variant": v, "link_bytes_per_s": link}
            for i, s, v, link in rows
        ]
    )


@pytest.fixture
def spans() -> pd.DataFrame:
    return pd.DataFrame(
        [
            span("p", "encode", 0.2),
            span("p", "load", 0.9, request=""),
            span("w", "load", 0.8),
            span("w", "release", 0.2, 1e9),
            span("w", "encode", 0.3),
            span("x", "host", 0.5, 1e9, request=""),
            span("x", "allocate", 0.05, 1e9),
            span("x", "copy-in", 0.125, 1e9),
            span("x", "release", 0.025, 1e9),
            span("x", "copy-in", 9.0, 1e9, request="a-first"),
        ]
    )


def test_a_copy_is_held_against_the_links_own_speed(
    spans: pd.DataFrame, cases: pd.DataFrame
) -> None:
    table = tables.swap_table(spans, cases).set_index(["variant", "stage"])
    copy = table.loc[("single-buffer", "copy-in")]
    assert copy[["MB", "GB/s", "of the link"]].tolist() == ["1,000.0", "8", "80.0 %"]
    assert copy["n"] == 1  # the first request is left out
    assert table.loc[("single-buffer", "host"), "when"] == "once"
    assert table.loc[("single-buffer", "host"), "of the link"] == labels.EMPTY
    assert table.loc[("plain", "first use"), "median s"] == "0.2"
    assert ("plain", "load") not in table.index  # the control does not swap
    assert table.loc[("reload-cached", "first use"), "median s"] == "0.3"


def test_what_is_paid_once_is_no_part_of_a_swap(spans: pd.DataFrame, cases: pd.DataFrame) -> None:
    seconds = tables.swap_seconds(spans, cases).sum(axis=1)
    assert seconds["single-buffer"] == pytest.approx(0.2)
    assert seconds["reload-cached"] == pytest.approx(1.0)
    assert key_findings.swapping(spans, cases) == [
        "Swapping by single-buffer takes 200 ms per request; its copy in reaches 80.0 % of the "
        "link's own "
        "speed.",
        "Swapping by reload-cached takes 1 s per request.",
    ]
    title = figures.swap_stages(spans, cases).get_suptitle()
    assert " ".join(title.split()) == (
        "single-buffer takes 200 ms to swap, reload-cached 1 s: 5 times as long"
    )
