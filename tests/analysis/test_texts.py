"""A text that was cut short counts in nothing, and is counted."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from hybridlab.analysis.arms import standings
from hybridlab.analysis.recommendation import Requirements, recommend
from hybridlab.analysis.texts import endings, heard, is_cut, whole
from hybridlab.reporting import key_findings, tables
from tests.analysis.test_verdict import Rows
from tests.reporting.frames import frame

WORDS = "one two three four"
COLUMNS = "transcript transcript_finish answer answer_finish"


def trials(*rows: tuple[str | None, str | None, str | None, str | None]) -> pd.DataFrame:
    return frame(COLUMNS, *rows, reference=WORDS, expected_answer="two")


MIXED = trials(
    (WORDS, "stop", "two", "stop"),
    ("one", "length", "two", "stop"),
    ("one two", "early", "tw", "length"),
    (WORDS, "stop", None, None),
)


def test_only_texts_that_ended_are_held_against_anything() -> None:
    assert list(heard(MIXED).index) == [0, 3]
    assert list(whole(MIXED).index) == [0, 3]
    assert list(is_cut(MIXED, "answer")) == [False, False, True, False]
    assert tables.answer_accuracy(MIXED) == 1.0


def test_one_line_says_how_many_ended_how() -> None:
    assert endings(MIXED) == (
        "3 of 7 texts were cut short: 1 transcript cut at the limit of tokens, 1 transcript ended "
        "with audio left unread, 1 answer cut at the limit of tokens; cut texts are in no word "
        "error rate, no parity and no claim."
    )
    windows = MIXED.assign(transcript_windows=[1, 4, 2, 1], transcript_windows_cut=[0, 3, 1, 0])
    assert "1 transcript (3 of 4 windows)" not in endings(windows)
    assert "1 transcript cut at the limit of tokens (3 of 4 windows)" in endings(windows)


def test_nothing_is_said_where_all_ended_or_nobody_knows() -> None:
    whole_ones = trials((WORDS, "stop", "two", "stop"), (None, None, None, None))
    assert endings(whole_ones) == ""
    assert key_findings.cut_short(whole_ones) == []
    older = whole_ones.drop(columns=["transcript_finish", "answer_finish"])
    assert endings(older) == "" and len(heard(older)) == 1


# ------------------------------------------------------------------------------------ the arms


def raced(*, cut: int, finish: str = "length") -> Rows:
    """Five rounds of two arms. Under the second the first `cut` of the five requests of a round
    are cut short, with three words in four missing."""
    rows = Rows()
    for arm in ("sequential/plain", "parallel/threads"):
        rows.arm(*arm.split("/"), "04", rounds=5, output_matches_reference=True)
    for number, row in enumerate(rows.rows["trials"]):
        place = number % 6 - 1  # the first request of each case is left out
        is_cut = row["strategy"] == "parallel" and 0 <= place < cut
        row |= {"clip_id": f"c{place}", "reference": WORDS, "answer": "two"}
        row |= {"expected_answer": "two", "answer_finish": "stop"}
        row |= {"transcript": "one" if is_cut else WORDS}
        row |= {"transcript_finish": finish if is_cut else "stop"}
        if is_cut:
            row["output_matches_reference"] = None
    return rows


@pytest.mark.parametrize("finish", ["length", "early"])
def test_an_arm_says_how_many_of_its_texts_were_cut(finish: str) -> None:
    rows = raced(cut=2, finish=finish)
    cases, served = rows.tables["cases"], rows.tables["trials"]
    (own,) = (arm for arm in standings(cases, served) if arm.strategy == "parallel")
    assert (own.cut, own.texts, own.unchecked) == (10, 50, 5)
    assert own.wer == 0.0  # of those that ended
    assert own.caveats == "10 of 50 texts cut short, texts unchecked in 5 of 5 cases"
    table = tables.latency_table(served, cases).set_index("strategy")
    assert table.loc["parallel/threads", "WER"] == "0.0 % (15 of 25 texts)"
    assert table.loc["sequential/plain", "WER"] == "0.0 %"


def test_a_limit_of_words_wrong_is_not_kept_by_texts_that_were_all_cut() -> None:
    rows = raced(cut=5)
    cases, served = rows.tables["cases"], rows.tables["trials"]
    (own,) = (arm for arm in standings(cases, served) if arm.strategy == "parallel")
    assert math.isnan(own.wer) and own.cut == 25
    asked = Requirements.asked(max_wer=0.5)
    assert asked.broken_by(own) == ["no word error rate: its texts were cut short"]
    found = recommend(cases, served, asked)
    assert found is not None and found.strategy == "sequential"
    (quality,) = (goal for goal in found.goals if goal.goal == "best quality")
    assert quality.figure == "word error rate 0.0 %"
    table = tables.latency_table(served, cases).set_index("strategy")
    assert table.loc["parallel/threads", "WER"] == "– (0 of 25 texts)"
    assert endings(served) in key_findings.strategy_comparison(cases, served)


def test_the_wer_that_is_quoted_says_that_texts_are_left_out() -> None:
    rows = raced(cut=1)
    for row in rows.rows["trials"]:
        if row["strategy"] == "sequential" and row["request_id"] == "q1":
            row |= {"transcript": "one", "transcript_finish": "length"}
    found = recommend(rows.tables["cases"], rows.tables["trials"], Requirements.asked(max_wer=0.5))
    assert found is not None
    (quality,) = (goal for goal in found.goals if goal.goal == "best quality")
    assert quality.figure == "word error rate 0.0 % of the texts that were not cut short"
