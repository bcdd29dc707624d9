"""Whatever the tables hold, a figure can be read: no fault, no blank axes, no not-a-number."""

from __future__ import annotations

import inspect
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from hybridlab.reporting import figures
from hybridlab.results.schema import TABLES, required_columns
from tests.reporting.figures.drawn import DRAWN, FROM_TABLES, SEQUENTIAL, Tables, words_of

FUNCTIONS = [name for name in figures.__all__ if name not in ("save", "plan_bars", "request")]
NAN = re.compile(r"\bnan\b", re.IGNORECASE)

EMPTY = {name: pd.DataFrame(columns=list(required_columns(name))) for name in TABLES}
BARE = {name: pd.DataFrame() for name in TABLES}


@pytest.mark.parametrize("name", FROM_TABLES)
def test_without_rows_it_says_what_is_missing(name: str) -> None:
    for empty in (EMPTY, BARE):
        tables = {**empty, "cases": empty["cases"].assign(experiment=pd.Series(dtype=str))}
        figure = DRAWN[name](tables)
        assert words_of(figure).startswith("No ")
        assert figure.axes == []


@pytest.mark.parametrize("name", FROM_TABLES)
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_column_that_is_needed_is_named_where_it_is_missing(name: str, tables: Tables) -> None:
    plot = getattr(figures, name)
    needed = inspect.getclosurevars(plot).nonlocals["needed"]
    given = {
        parameter: tables[parameter]
        for parameter in inspect.signature(plot).parameters
        if parameter in tables
    }
    more = {"case_id": SEQUENTIAL} if "case_id" in inspect.signature(plot).parameters else {}
    for table, columns in needed.items():
        for column in columns:
            less = {**given, table: given[table].drop(columns=column)}
            assert words_of(plot(**less, **more)) == (
                f"No figure: the table {table} has no column {column}."
            )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_columns_that_are_needed_are_enough(name: str, tables: Tables) -> None:
    """All other columns are taken away: a figure, or what is missing, but no fault."""
    plot = getattr(figures, name)
    needed = inspect.getclosurevars(plot).nonlocals["needed"]
    parameters = inspect.signature(plot).parameters
    given = {
        parameter: tables[parameter][list(needed.get(parameter, ("case_id",)))]
        for parameter in parameters
        if parameter in tables
    }
    more = {"case_id": SEQUENTIAL} if "case_id" in parameters else {}
    figure = plot(**given, **more)
    figure.draw_without_rendering()
    assert figure.axes or words_of(figure).startswith("No ")


def test_an_envelope_is_always_said(tables: Tables) -> None:
    inside = {
        table: rows.assign(memory_limited=True) if "memory_limited" in rows else rows
        for table, rows in tables.items()
    }
    for name in FROM_TABLES:
        assert "inside a memory limit (bytes speak" in words_of(DRAWN[name](inside)), name


def test_weights_that_are_not_at_hand_are_not_guessed(tables: Tables) -> None:
    assert "weights: not recorded" in words_of(figures.latency(tables["trials"]))


def test_a_single_arm_has_no_runner_up(tables: Tables) -> None:
    only = {
        name: rows[(rows["strategy"] == "sequential") & (rows["variant"] == "plain")]
        if {"strategy", "variant"} <= set(rows.columns)
        else rows
        for name, rows in tables.items()
    }
    assert figures.latency(only["trials"]).get_suptitle().startswith("sequential/plain takes 1.2")
    assert " under sequential/plain" in DRAWN["request_lanes"](only).get_suptitle()
    assert "least" not in figures.throughput(only["cases"]).get_suptitle()
