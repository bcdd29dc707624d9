"""How much each phase of one party slows each phase of another, from their spans. No torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: The label of spans of a party that had the device for itself.
ALONE = "reference"
#: A phase must have been beside the others for so many seconds in all to be spoken of.
LEAST_BESIDE_S = 0.02
RESAMPLES = 200

Array = NDArray[np.float64]


def slowdowns(spans: pd.DataFrame) -> pd.DataFrame:
    """One row per phase of a party and phase of the party beside it: `role, phase, other,
    other_phase, slowdown` (1: none), its bootstrap 95 % interval `low, high`, and `n` spans.

    A span that takes d0 alone and stands beside phases q for t_q seconds got done what it had to:
    d0 = sum of t_q r_q with the rates r_q = 1 / slowdown. Over many spans the rates follow by least
    squares; beside nothing the rate is 1. Requests are compared with themselves alone.
    """
    labelled = _labelled(spans)
    alone = labelled[labelled["pairing"] == ALONE]
    expected = alone.groupby(["role", "phase", "spec"])["seconds"].median()
    rows: list[dict[str, Any]] = []
    for pairing, both in labelled[labelled["pairing"] != ALONE].groupby("pairing", sort=False):
        for role in str(pairing).split("+"):
            mine, theirs = both[both["role"] == role], both[both["role"] != role]
            for phase, own in mine.groupby("phase", sort=False):
                wanted = expected.get((role, phase), pd.Series(dtype=float))
                rows += _rates(own, theirs, wanted, np.random.default_rng(0))
    columns = ["role", "phase", "other", "other_phase", "slowdown", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def _labelled(spans: pd.DataFrame) -> pd.DataFrame:
    if spans.empty:
        return spans.assign(pairing="", spec="", seconds=0.0)
    own = spans[spans["request_id"].astype(str).str.contains(":", regex=False)]
    parts = own["request_id"].str.split(":", n=1, expand=True)
    return own.assign(
        pairing=parts[0] if len(own) else "",
        spec=parts[1] if len(own) else "",
        seconds=own["end_s"] - own["start_s"],
    )


def _rates(
    own: pd.DataFrame, theirs: pd.DataFrame, expected: pd.Series[float], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Rows of one phase of one party."""
    own = own[own["spec"].isin(expected.index)]
    phases = list(dict.fromkeys(theirs["phase"]))
    if own.empty or not phases:
        return []
    beside = np.column_stack([_overlap(own, theirs[theirs["phase"] == p]) for p in phases])
    idle = own["seconds"].to_numpy(dtype=float) - beside.sum(axis=1)
    done = own["spec"].map(expected).to_numpy(dtype=float) - idle
    known = [index for index in range(len(phases)) if beside[:, index].sum() >= LEAST_BESIDE_S]
    if not known or len(own) <= len(known):
        return []
    beside = beside[:, known]
    found = _solve(beside, done)
    picks = rng.integers(0, len(own), (RESAMPLES, len(own)))
    again = np.array([_solve(beside[pick], done[pick]) for pick in picks])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)  # of rates
    return [
        {
            "role": own["role"].iloc[0],
            "phase": own["phase"].iloc[0],
            "other": theirs["role"].iloc[0],
            "other_phase": phases[index],
            "slowdown": _slowdown(found[place]),
            "low": _slowdown(high[place]),
            "high": _slowdown(low[place]),
            "n": len(own),
        }
        for place, index in enumerate(known)
    ]


def _solve(beside: Array, done: Array) -> Array:
    """The rate beside each phase."""
    return np.asarray(np.linalg.lstsq(beside, done, rcond=None)[0], dtype=np.float64)


def _slowdown(rate: float) -> float:
    """Infinite where the party stood still."""
    return 1 / float(rate) if rate > 0 else math.inf


def _overlap(own: pd.DataFrame, theirs: pd.DataFrame) -> Array:
    """Seconds that each span of `own` shares with those of `theirs`, which do not overlap."""
    start, end = (own[name].to_numpy(dtype=float)[:, None] for name in ("start_s", "end_s"))
    began, ended = (theirs[name].to_numpy(dtype=float)[None, :] for name in ("start_s", "end_s"))
    shared = np.minimum(end, ended) - np.maximum(start, began)
    total: Array = np.clip(shared, 0, None).sum(axis=1)
    return total
