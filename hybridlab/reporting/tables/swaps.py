"""Tables of swaps: what each stage of a swap takes, moves and reaches of the link."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.rows import (
    RACE,
    case_interval,
    cases_of,
    complete_tables,
    measured,
    timed_table,
)
from hybridlab.units import GB

#: Stages of every swap in their order; a reload's `load` is one, an arena's is paid once.
SWAP_STAGES = ("disk", "load", "allocate", "copy-in", "copy-out", "release")
#: Made once, when the case starts, to be able to swap.
ONCE_STAGES = ("host", "pin")
#: Stages that move bytes, as opposed to taking or freeing them.
MOVING = ("disk", "host", "copy-in", "copy-out")
#: Of them, those that cross the link.
LINKED = ("copy-in", "copy-out")
COLUMNS = ["case_id", "variant", "role", "stage", "once", "seconds", "bytes", "link_bytes_per_s"]


@complete_tables
def swap_spans(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per stage of every swap of a race: `COLUMNS`, first requests left out.

    `once`: paid when the case starts. Only models that swap. The first pass after a swap stands as
    stage `first use`; with variant `plain` (the control) it is one of weights that never left.
    """
    race = measured(cases_of(cases, RACE))
    race = race.assign(link_bytes_per_s=numbers(race, "link_bytes_per_s"))
    columns = ["case_id", "strategy", "variant", "link_bytes_per_s"]
    own = spans.merge(race[columns], on="case_id")
    own = own.assign(seconds=own["end_s"] - own["start_s"], once=own["request_id"].isna())
    own = own[~own["request_id"].fillna("").str.endswith("-first")]
    moved = own[(own["strategy"] == "swapping") & (own["phase"] == "release")]
    swapped = own.set_index(["case_id", "role"]).index.isin(
        moved.set_index(["case_id", "role"]).index
    )
    staged = own[swapped & own["phase"].isin([*SWAP_STAGES, *ONCE_STAGES])]
    control = (own["strategy"] == "sequential") & (own["variant"] == "plain")
    encode = (own["phase"] == "encode") & own["role"].isin(set(moved["role"]))
    used = own[encode & (swapped | control)]
    both = pd.concat([staged, used.assign(phase="first use", bytes=np.nan)])
    return both.rename(columns={"phase": "stage"}).reindex(columns=COLUMNS)


@timed_table
def swap_table(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Median seconds, bytes, GB/s and share of the link's own speed by variant and stage."""
    order = [*ONCE_STAGES, *SWAP_STAGES, "first use"]
    rows = []
    groups = swap_spans(spans, cases).groupby(
        ["variant", "role", "once", "stage"], sort=False, dropna=False
    )
    for (variant, role, once, stage), own in groups:
        n_bytes = float(pd.to_numeric(own["bytes"]).median())
        rate = n_bytes / float(own["seconds"].median()) if stage in MOVING else np.nan
        link = float(own["link_bytes_per_s"].median()) if stage in LINKED else np.nan
        rows.append(
            {
                "variant": variant,
                "model": labels.role_name(str(role)),
                "stage": stage,
                "when": "once" if once else "each swap",
                "n": len(own),
                "median s": labels.interval(case_interval(own, own["seconds"])),
                "MB": labels.EMPTY if np.isnan(n_bytes) else f"{n_bytes / GB * 1e3:,.1f}",
                "GB/s": labels.number(rate / GB),
                "of the link": labels.percent(rate / link),
            }
        )
    rows.sort(
        key=lambda row: (row["variant"], row["model"], row["when"], order.index(str(row["stage"])))
    )
    return pd.DataFrame(rows)


def swap_seconds(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each stage of a request's swaps: a row per variant, a column per stage;
    both models' stages are added where both swap."""
    stages = swap_spans(spans, cases)
    each = stages[~stages["once"].astype(bool) & stages["stage"].isin(SWAP_STAGES)]
    medians = each.groupby(["variant", "role", "stage"])["seconds"].median()
    table = medians.groupby(["variant", "stage"]).sum().unstack("stage").fillna(0.0)
    return table[[stage for stage in SWAP_STAGES if stage in table]]
