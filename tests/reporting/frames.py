"""Small tables, written as rows under the names of their columns."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hybridlab.reporting.rows import RACE


def frame(names: str, *rows: tuple[Any, ...], **common: Any) -> pd.DataFrame:
    """A table from rows in the order of `names`; `common` columns have one value in all rows."""
    return pd.DataFrame(rows, columns=names.split()).assign(**common)


def race(names: str, *rows: tuple[Any, ...], **common: Any) -> pd.DataFrame:
    """A table of a comparison of strategies whose cases ended well."""
    return frame(names, *rows, **{"experiment": RACE, "status": "ok", **common})
