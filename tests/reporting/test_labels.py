"""Names and numbers as readers see them: known answers, and a dash for whatever is missing."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from hybridlab.analysis.stats import Interval
from hybridlab.reporting import labels
from hybridlab.reporting.rows import case_labels
from hybridlab.units import GIB, counted


@pytest.mark.parametrize("value", [None, math.nan, math.inf, " ", pd.NA, pd.NaT])
def test_what_is_missing_is_a_dash(value: Any) -> None:
    shown = (labels.text, labels.n_bytes, labels.gib, labels.seconds, labels.number)
    assert {show(value) for show in (*shown, labels.percent)} == {labels.EMPTY}
    assert math.isnan(labels.number_of({"x": value}, "x"))
    assert labels.text_of({"x": value}, "x") == labels.text_of({}, "x") == ""


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (labels.text(True), "yes"),
        (labels.text(["a", "b"]), "a, b"),
        (labels.text("two\nlines"), "two lines"),
        (labels.text(0), "0"),
        (labels.percent(0.034), "3.4 %"),
        (labels.percent(-0.1, signed=True), "−10.0 %"),
        (labels.interval(Interval(0.412, 0.39, 0.44, 9)), "0.412 (0.39–0.44)"),
        (labels.interval(Interval(0.4, math.nan, math.nan, 1)), "0.4"),
        (labels.interval(Interval(math.nan, math.nan, math.nan, 0)), labels.EMPTY),
        (labels.output_matches_reference([True, False, None]), "1 of 2"),
        (labels.output_matches_reference([None]), labels.EMPTY),
        (labels.spare(3 * GIB), "3.00 GiB to spare"),
        (labels.spare(-GIB / 2), "512 MiB short"),
        (counted(1, "case"), "1 case"),
        (counted(0, "case"), "0 cases"),
        (labels.arm_name("sequential", "plain"), "sequential/plain"),
        (labels.arm_name("reference", "asr"), "asr by itself"),
        (labels.failure({"status": "oom", "reason": "no memory"}), "out of memory: no memory"),
        (labels.failure({"status": "ok"}), ""),
    ],
)
def test_known_answers(shown: str, expected: str) -> None:
    assert shown == expected


PLAIN = {"strategy": "sequential", "variant": "plain"}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"experiment": "co_residency", "asr_model": "tiny"}, "tiny"),
        ({"experiment": "baseline"}, "Voxtral alone"),
        (
            {"experiment": "request_scaling", "scaling_kind": "batch", "scaling_value": 4.0},
            "batch of 4",
        ),
        (
            {"experiment": "memory_limits", "limit_kind": "beams"} | PLAIN,
            "most beams, sequential/plain",
        ),
        ({"experiment": "strategy_comparison"} | PLAIN, "sequential/plain"),
        ({"experiment": "attention", "attention": "math"}, "math attention, – s"),
    ],
)
def test_cases_are_named_by_what_sets_them_apart(row: dict[str, Any], name: str) -> None:
    assert labels.case_name(row) == name


def test_only_what_varies_is_added_to_a_name() -> None:
    rows = [
        {"experiment": "co_residency", "asr_model": "base", "asr_dtype": dtype}
        for dtype in ("float16", "int8")
    ]
    assert list(case_labels(pd.DataFrame(rows))) == ["base float16", "base int8"]
    assert list(case_labels(pd.DataFrame(rows[:1]))) == ["base"]


def test_commands_can_use_labels_and_colours_without_pandas_and_matplotlib() -> None:
    code = (
        "import sys; from hybridlab.cli import bars; "
        "assert not {'pandas', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
