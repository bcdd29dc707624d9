"""The made-up run, and its figures, once for all tests of figures."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.reporting.figures.drawn import DRAWN, Tables, tables_of


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return tables_of(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def drawn(tables: Tables) -> Callable[[str], Figure]:
    """Each figure by name, laid out once for all tests that only look at it. To draw it changes
    neither its tables nor matplotlib's settings."""
    known: dict[str, Figure] = {}

    def figure(name: str) -> Figure:
        if name not in known:
            copies = {table: rows.copy(deep=True) for table, rows in tables.items()}
            settings = dict(mpl.rcParams)
            known[name] = DRAWN[name](tables)
            known[name].draw_without_rendering()
            assert dict(mpl.rcParams) == settings
            for table, rows in tables.items():
                pd.testing.assert_frame_equal(rows, copies[table])
        return known[name]

    return figure
