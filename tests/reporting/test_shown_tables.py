"""Tables as notebooks show them."""

from __future__ import annotations

import re

import pandas as pd

from hybridlab.reporting.key_findings import MOST_SENTENCES, NO_ANSWER, markdown
from hybridlab.reporting.tables.shown import MOST_ROWS, OPEN_ROWS, is_figures, table_html

LONG = "other processes used 75% of the processors meanwhile, " * 5
ROWS = pd.DataFrame(
    {"who": ["a", LONG], "peak GiB": ["8.71", "–"], "latency_s": [0.0645123, None]}, index=[7, 9]
)


def cells(html: str) -> list[tuple[str, str]]:
    """(alignment, text) of every cell, headings first."""
    return re.findall(r'<t[hd] style="text-align:(\w+)[^"]*">([^<]*)<', html)


def test_words_stand_left_figures_right_in_three_digits_and_nothing_is_cut() -> None:
    html = table_html(ROWS)
    assert html is not None and "…" not in html
    assert cells(html) == [
        *(("left", "who"), ("right", "peak GiB"), ("right", "latency_s")),
        *(("left", "a"), ("right", "8.71"), ("right", "0.0645")),
        *(("left", LONG.strip()), ("right", "–"), ("right", "–")),
    ]


def test_an_index_that_says_something_stays_and_text_is_never_markup() -> None:
    html = table_html(pd.DataFrame({"n": [1]}, index=["<b>"]))
    assert html is not None
    assert cells(html) == [("left", ""), ("right", "n"), ("left", "&lt;b&gt;"), ("right", "1")]


def test_a_name_that_begins_with_a_digit_is_no_figure() -> None:
    assert not is_figures(["04_sequential", "07_verdict"])
    assert is_figures(["12 of 12", "−0.3 %", "0.41 (0.39–0.44)", "–", "83%", "1,234"])


def test_many_rows_are_folded_and_very_many_left_to_pandas() -> None:
    html = table_html(pd.DataFrame({"n": range(OPEN_ROWS + 1)}))
    assert html is not None
    assert html.startswith("<details><summary>31 rows</summary>") and html.count("<tr>") == 32
    assert table_html(pd.DataFrame({"n": range(MOST_ROWS + 1)})) is None


def test_what_was_learnt_begins_with_the_answer_and_folds_the_rest() -> None:
    shown, folded = markdown(["a1", "a2"], ["b1", "b2"], [], ["c1", "c2", "c3"]).split("<details>")
    assert shown.split() == ["-", "a1", "-", "a2", "-", "b1", "-", "c1", "-", "b2"]
    assert shown.count("- ") == MOST_SENTENCES
    assert "<summary>2 more</summary>\n\n- c2\n- c3\n\n</details>" in folded
    assert "<details>" not in markdown(["a1"])


def test_without_an_answer_that_is_said_first() -> None:
    assert markdown([], ["b1"]) == f"- {NO_ANSWER}\n- b1"
