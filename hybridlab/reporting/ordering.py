"""One order of strategies and sizes through all figures and tables."""

from __future__ import annotations

import pandas as pd

from hybridlab import catalog
from hybridlab.reporting.palette import STRATEGY_COLOURS

STRATEGIES = tuple(STRATEGY_COLOURS)
SIZES = (*catalog.WHISPER_SIZES, *catalog.POCKET_SIZES)


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by experiment as it comes, then strategy, then size of Whisper; otherwise in order of
    appearance, which is that in which the parameters name the variants. What has no strategy or
    size comes first."""
    if rows.empty:
        return rows
    experiment = rows["experiment"] if "experiment" in rows else pd.Series(0, index=rows.index)
    keys = pd.DataFrame(
        {
            "experiment": pd.factorize(experiment)[0],
            "strategy": _ranks(rows, "strategy", STRATEGIES),
            "size": _ranks(rows, "asr_model", SIZES),
        }
    )
    return rows.iloc[keys.sort_values(["experiment", "strategy", "size"], kind="stable").index]


def _ranks(rows: pd.DataFrame, column: str, known: tuple[str, ...]) -> list[int]:
    """The place of each row's value among those that are known, -1 for all others."""
    values = rows[column] if column in rows else [None] * len(rows)
    return [known.index(value) if value in known else -1 for value in values]


def strategies_first(names: list[str]) -> list[str]:
    """Arms such as 'sequential/plain' by strategy; those of one strategy as they come."""
    place = {name: number for number, name in enumerate(STRATEGIES)}
    return sorted(names, key=lambda name: place.get(name.split("/")[0], len(place)))
