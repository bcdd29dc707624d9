"""How much each phase of one party slows each phase of another, from their spans. No torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlab.analysis.stats import Estimate

#: The label of spans of a party that had the device for itself.
ALONE = "reference"
#: A phase must have been beside the others for so many seconds in all to be spoken of.
LEAST_BESIDE_S = 0.02

Array = NDArray[np.float64]


def slowdowns(spans: pd.DataFrame) -> pd.DataFrame:
    """One row per phase of a party and phase of the party beside it: `role, phase, other,
    other_phase, slowdown` (1: none), its 95 % interval `low, high`, `n` spans, and the `chance` of
    so much though nothing is slowed. What cannot be told, with no upper bound, has no row.

    A span that takes d0 alone and stands beside phases q for t_q seconds got done what it had to:
    d0 = sum of t_q r_q with the rates r_q = 1 / slowdown. Over many spans the rates follow by least
    squares; beside nothing the rate is 1. Requests are compared with themselves alone: d0 is the
    mean of their spans alone, whose error is shared by all spans of a request and counts, too.
    """
    labelled = _labelled(spans)
    alone = labelled[labelled["pairing"] == ALONE].groupby(["role", "phase", "spec"])["seconds"]
    usual = pd.DataFrame({"mean": alone.mean(), "n": alone.size(), "squares": alone.var(ddof=0)})
    usual = usual.reset_index()
    rows: list[dict[str, Any]] = []
    for pairing, both in labelled[labelled["pairing"] != ALONE].groupby("pairing", sort=False):
        for role in str(pairing).split("+"):
            mine, theirs = both[both["role"] == role], both[both["role"] != role]
            for phase, own in mine.groupby("phase", sort=False):
                mine_alone = usual[(usual["role"] == role) & (usual["phase"] == phase)]
                rows += _rates(own, theirs, mine_alone.set_index("spec"))
    columns = ["role", "phase", "other", "other_phase", "slowdown", "low", "high", "n", "chance"]
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


def _rates(own: pd.DataFrame, theirs: pd.DataFrame, usual: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of one phase of one party; `usual`: its seconds alone by request."""
    own = own[own["spec"].isin(usual.index)]
    phases = list(dict.fromkeys(theirs["phase"]))
    if own.empty or not phases:
        return []
    beside = np.column_stack([_overlap(own, theirs[theirs["phase"] == p]) for p in phases])
    idle = own["seconds"].to_numpy(dtype=float) - beside.sum(axis=1)
    done = own["spec"].map(usual["mean"]).to_numpy(dtype=float) - idle
    known = [index for index in range(len(phases)) if beside[:, index].sum() >= LEAST_BESIDE_S]
    rates = _solve(beside[:, known], done, own["spec"], usual) if known else []
    found = [(phases[index], rate) for index, rate in zip(known, rates, strict=False)]
    return [
        {
            "role": own["role"].iloc[0],
            "phase": own["phase"].iloc[0],
            "other": theirs["role"].iloc[0],
            "other_phase": phase,
            "slowdown": 1 / rate.value,
            "low": 1 / rate.interval().high,
            "high": 1 / rate.interval().low,
            "n": len(own),
            "chance": rate.below(1.0),
        }
        for phase, rate in found
        if rate.interval().low > 0
    ]


def _solve(beside: Array, done: Array, specs: pd.Series, usual: pd.DataFrame) -> list[Estimate]:
    """The rate beside each phase; empty where spans or times alone are too few for an error.

    The covariance of the least squares holds the scatter of single spans, and the error of each
    request's time alone, which all its spans share; that is taken as the same share of any time.
    """
    spare, alone_spare = len(done) - beside.shape[1], float((usual["n"] - 1).sum())
    if spare < 1 or alone_spare < 1 or np.linalg.matrix_rank(beside) < beside.shape[1]:
        return []
    solved = np.linalg.pinv(beside)
    rates = solved @ done
    scatter = float(((done - beside @ rates) ** 2).sum()) / spare
    share = float((usual["n"] * usual["squares"] / usual["mean"] ** 2).sum()) / alone_spare
    ones = specs.to_numpy()[:, None] == usual.index.to_numpy()[None, :]
    errors = ones * np.sqrt(share / usual["n"].to_numpy(dtype=float)) * usual["mean"].to_numpy()
    variances = (solved**2).sum(axis=1) * scatter + ((solved @ errors) ** 2).sum(axis=1)
    freedom = min(float(spare), alone_spare)
    return [
        Estimate(float(rate), math.sqrt(variance), freedom, len(done))
        for rate, variance in zip(rates, variances, strict=True)
    ]


def _overlap(own: pd.DataFrame, theirs: pd.DataFrame) -> Array:
    """Seconds that each span of `own` shares with those of `theirs`, which do not overlap."""
    start, end = (own[name].to_numpy(dtype=float)[:, None] for name in ("start_s", "end_s"))
    began, ended = (theirs[name].to_numpy(dtype=float)[None, :] for name in ("start_s", "end_s"))
    shared = np.minimum(end, ended) - np.maximum(start, began)
    total: Array = np.clip(shared, 0, None).sum(axis=1)
    return total
