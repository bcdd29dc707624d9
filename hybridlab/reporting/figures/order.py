"""One order of strategies, sizes and tenants through all figures."""

from __future__ import annotations

import pandas as pd

from hybridlab import catalog
from hybridlab.reporting.figures.palette import STRATEGY_COLOURS

STRATEGIES = tuple(STRATEGY_COLOURS)
SIZES = (*catalog.WHISPER_SIZES, *catalog.POCKET_SIZES)


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by strategy, then by the size of Whisper; otherwise in order of appearance, which is
    that in which the parameters name the variants. What has no strategy or size comes first."""
    if rows.empty:
        return rows
    # experiments in order of appearance: each is a block of its own
    blocks = pd.factorize(rows["experiment"])[0] if "experiment" in rows else 0
    keys = pd.DataFrame(
        {
            "block": blocks,
            "strategy": _ranks(rows, "strategy", STRATEGIES).to_numpy(),
            "size": _ranks(rows, "whisper_size", SIZES).to_numpy(),
        },
        index=range(len(rows)),
    )
    return rows.iloc[keys.sort_values(["block", "strategy", "size"], kind="stable").index]


def _ranks(rows: pd.DataFrame, column: str, known: tuple[str, ...]) -> pd.Series[int]:
    if column not in rows:
        return pd.Series(0, index=rows.index)
    place = {name: number for number, name in enumerate(known)}
    ranks = rows[column].map(place)
    return ranks.fillna(-1).astype(int)


def strategies_first(names: list[str]) -> list[str]:
    """Arms such as 'sequential plain' by strategy; those of one strategy as they come."""
    place = {name: number for number, name in enumerate(STRATEGIES)}
    return sorted(names, key=lambda name: place.get(name.split(" ")[0], len(place)))
