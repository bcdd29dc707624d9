"""Whatever the tables hold, a figure can be read: no fault, no blank axes, no not-a-number."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from hybridlab.reporting import figures
from hybridlab.results.schema import TABLES, required_columns
from tests.reporting.figures.drawn import DRAWN, FROM_TABLES, PREDICTED, Tables, words_of

NAN = re.compile(r"\bnan\b", re.IGNORECASE)

OF_ROWS = [name for name in FROM_TABLES if name not in PREDICTED]
EMPTY = {name: pd.DataFrame(columns=list(required_columns(name))) for name in TABLES}
BARE = {name: pd.DataFrame() for name in TABLES}


@pytest.mark.parametrize("name", OF_ROWS)
def test_without_rows_it_says_what_is_missing(name: str) -> None:
    for empty in (EMPTY, BARE):
        tables = {**empty, "cases": empty["cases"].assign(experiment=pd.Series(dtype=str))}
        figure = DRAWN[name](tables)
        assert words_of(figure).startswith("No ")
        assert figure.axes == []


@pytest.mark.parametrize("name", OF_ROWS)
def test_without_numbers_it_says_so(name: str, tables: Tables) -> None:
    """Every reading is missing: names and labels stay, numbers are gone."""
    hollow = {
        table: rows.assign(
            **{
                column: np.nan
                for column in rows.infer_objects().select_dtypes("number")
                if column != "cycle"
            }
        )
        for table, rows in tables.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        figure = DRAWN[name](hollow)
    figure.draw_without_rendering()
    words = f"{figure.get_suptitle()} {words_of(figure)}"
    assert not NAN.search(words)
    assert words.strip().startswith(("No ", "Not one")), words


@pytest.mark.parametrize("name", FROM_TABLES)
def test_one_row_of_each_kind_is_drawn_or_explained(name: str, tables: Tables) -> None:
    single = {
        table: rows.groupby("experiment", sort=False).head(1) if len(rows) else rows
        for table, rows in tables.items()
    }
    figure = DRAWN[name](single)
    figure.draw_without_rendering()
    words = f"{figure.get_suptitle()} {words_of(figure)}"
    assert not NAN.search(words)
    assert figure.axes or words.strip().startswith("No ")


@pytest.mark.parametrize("name", OF_ROWS)
def test_columns_that_a_table_lacks_are_missing_values(name: str, tables: Tables) -> None:
    """As in a run of an older schema: what is left is drawn, or what is missing is said."""
    kept = ("case_id", "experiment", "status", "strategy", "variant", "role", "phase", "owner")
    bare = {table: rows[rows.columns.intersection(kept)] for table, rows in tables.items()}
    figure = DRAWN[name](bare)
    figure.draw_without_rendering()
    words = f"{figure.get_suptitle()} {words_of(figure)}"
    assert words.strip().startswith(("No ", "Not one")), words


@pytest.mark.parametrize("name", PREDICTED)
def test_without_rows_what_is_predicted_is_drawn_as_such(name: str) -> None:
    for tables in (EMPTY, BARE):
        cases = EMPTY["cases"].assign(experiment=pd.Series(dtype=str))
        figure = DRAWN[name]({**tables, "cases": cases})
        assert "is predicted to fit" in figure.get_suptitle().replace("\n", " ")
        assert "n = 12 pairs predicted by formulas, nothing was run" in words_of(figure)
        bars = [bar for container in figure.axes[0].containers for bar in container]
        assert {bar.get_facecolor() for bar in bars} == {(1.0, 1.0, 1.0, 1.0)}  # hollow


@pytest.mark.parametrize("name", ["memory_bars", "latency"])
def test_a_memory_limit_is_said(name: str, tables: Tables) -> None:
    inside = {
        table: rows.assign(memory_limited=True) if "memory_limited" in rows else rows
        for table, rows in tables.items()
    }
    assert "inside a memory limit (bytes speak" in words_of(DRAWN[name](inside))


def test_weights_that_are_not_at_hand_are_not_guessed(tables: Tables) -> None:
    assert "weights: not recorded" in words_of(figures.latency(tables["trials"]))


def test_a_single_arm_has_no_runner_up(tables: Tables) -> None:
    only = {
        name: rows[(rows["strategy"] == "sequential") & (rows["variant"] == "plain")]
        if {"strategy", "variant"} <= set(rows.columns)
        else rows
        for name, rows in tables.items()
    }
    title = figures.latency(only["trials"], only["cases"]).get_suptitle()
    assert title.startswith("sequential/plain takes 1.2")
    assert " under sequential/plain" in DRAWN["request_lanes"](only).get_suptitle()
    assert "least" not in figures.throughput(only["cases"], only["trials"]).get_suptitle()
