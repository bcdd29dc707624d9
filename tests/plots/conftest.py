from __future__ import annotations

import pytest

from tests.plots.drawn import Tables, tables_of


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return tables_of(tmp_path_factory.mktemp("run"))
