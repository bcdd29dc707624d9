"""The made-up run, and its figures, once for all tests of figures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

from tests.reporting.figures.drawn import DRAWN, Tables, tables_of


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return tables_of(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def drawn(tables: Tables) -> Callable[[str], Figure]:
    """Each figure by name, laid out once for all tests that only look at it."""
    known: dict[str, Figure] = {}

    def figure(name: str) -> Figure:
        if name not in known:
            known[name] = DRAWN[name](tables)
            known[name].draw_without_rendering()
        return known[name]

    return figure
