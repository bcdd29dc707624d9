"""The stack that every bar of memory is drawn from: it is closed, and no part is lost."""

from __future__ import annotations

import pytest

from hybridlab import catalog, planner
from hybridlab.reporting.memory_stack import (
    FAR,
    closed_stack,
    is_far,
    legend,
    longest,
    planned_stack,
    segments,
)


@pytest.mark.parametrize("total", [0, 5, 14, 30])
def test_a_stack_is_closed_whatever_is_known(total: float) -> None:
    stack = closed_stack(total, {"base": 10, "llm": 4}, rest="request")
    assert sum(stack.values()) == total
    assert all(size >= 0 for size in stack.values())
    assert closed_stack(total, {"base": 10}, rest="base") == {"base": total}


def test_segments_stand_one_after_the_other_and_the_legend_has_each_once() -> None:
    stack = {"base": 1.0, "llm": 2.0, "asr": 0.0, "request": 3.0}
    assert [(s.owner, s.start, s.size) for s in segments(stack)] == [
        *(("base", 0.0, 1.0), ("llm", 1.0, 2.0), ("request", 3.0, 3.0))
    ]
    seen = legend([stack, {"request": 1.0, "asr": 1.0}])
    assert [(s.owner, s.size) for s in seen] == [
        *(("base", 1.0), ("llm", 2.0), ("asr", 1.0), ("request", 4.0))
    ]
    assert longest([stack, {}]) == 6.0 and longest([]) == 0.0
    assert not is_far(FAR, 1.0) and is_far(FAR + 1, 1.0)


def test_every_owner_of_the_planner_is_drawn() -> None:
    for plan in planner.plan_table(catalog.card("t4"), sizes=("base", "large-v3")):
        for moment in plan.ledger:
            stack = planned_stack(plan.expected(moment))
            assert sum(stack.values()) == plan.moment(moment).expected
