"""docs/planner.html is what the tool writes, and says of its errors what docs/accuracy.md shows."""

from __future__ import annotations

from benchmarks import planner_accuracy
from hybridlab.reporting.planner_page import planner_page
from hybridlab.units import MIB
from tools import accuracy
from tools.planner_page import PAGE


def test_the_page_is_generated() -> None:
    assert PAGE.read_text(encoding="utf-8") == planner_page()


def test_nothing_is_fetched() -> None:
    page = planner_page()
    assert "http:" not in page
    assert "https:" not in page
    assert page.count("<script") == 2  # the facts and the one that the policy names


def test_the_error_that_it_states_is_the_one_that_was_seen() -> None:
    page = planner_page()
    assert (planner_accuracy.MOST_SHARE, planner_accuracy.MOST_BYTES) == (0.03, 64 * MIB)
    assert "within 3 % or 64 MiB" in page
    apart = [row.id for row in accuracy.rows() if abs(row.error) > 0.15]
    assert len(apart) == 2
    assert "within 15 %, two apart" in page
