"""Figure of one request under each strategy: a row of lanes per arm on one axis of time (s)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, gantt, theme
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.latency import pooled_words
from hybridlab.reporting.ordering import strategies_first
from hybridlab.units import format_seconds

#: Height of one tenant's lane; an arm's lanes fill a row of height 1.
LANE = 0.4


@theme.styled(spans=(*gantt.COLUMNS, "experiment"), cases=("case_id", "strategy", "variant"))
def request_lanes(
    spans: pd.DataFrame, cases: pd.DataFrame, *, every_variant: bool = False
) -> Figure:
    """When each tenant worked on one request, from the request's first phase to its last.

    The request is the one that most arms served, of several the one closest to what each arm
    usually takes; of an arm's rounds the one of median length is drawn. Of each strategy only the
    variant with the shortest requests is shown, unless `every_variant`.
    """
    served = _served(spans, cases)
    if served.empty:
        return theme.nothing_to_show("No request was served by a race, so there are no lanes.")
    shown = _shown(served, every_variant=every_variant)
    seconds = dict(zip(shown["arm"], shown["seconds"], strict=True))
    own = spans.merge(shown[["case_id", "request_id", "arm", "begin_s"]])
    own = own.assign(start_s=own["start_s"] - own["begin_s"], end_s=own["end_s"] - own["begin_s"])
    arms = strategies_first([arm for arm in served["arm"].unique() if arm in seconds])
    figure, ax = theme.new_axes(theme.rows_height(len(arms), each_in=0.6))
    for y, arm in enumerate(arms):
        _draw_arm(ax, y, own[own["arm"] == arm], max(seconds.values()))
    best = min(range(len(arms)), key=lambda y: seconds[arms[y]])
    elements.name_rows(ax, arms, best=best)
    elements.note_column(ax, [(y, format_seconds(seconds[arm])) for y, arm in enumerate(arms)])
    ax.set_xlim(0, max(seconds.values()) * 1.01)
    ax.set_xlabel("time since the request's first phase began (s)")
    handles = [*gantt.tenant_handles(own), *gantt.phase_handles(own)]
    elements.legend_below(ax, handles=handles, columns=7)
    name = str(shown["request_id"].iloc[0])
    words = caption(
        shown,
        cases,
        n=f"1 request ({name}) in {labels.counted(len(arms), 'arm')}",
        interval="no interval: of an arm's rounds the one of median length",
        notes=(
            "upper lane: Voxtral, lower lane: Whisper; one lane: the only tenant",
            _which(every_variant),
            pooled_words(own),
        ),
    )
    return theme.finish(figure, _finding(own, seconds), words)


def _which(every_variant: bool) -> str:
    return "" if every_variant else "of each strategy the variant whose requests are shortest"


def _served(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per race case and request: `case_id, request_id, strategy, arm, begin_s, seconds`."""
    race = spans[(spans["experiment"] == "strategy_comparison") & spans["request_id"].notna()]
    race = race[~race["request_id"].astype(str).str.endswith("-first")]
    race = race[race["end_s"] > race["start_s"]]
    if race.empty:
        return pd.DataFrame()
    ends = race.groupby(["case_id", "request_id"], sort=False).agg(
        begin_s=("start_s", "min"), end_s=("end_s", "max")
    )
    names = cases[["case_id", "strategy", "variant"]].drop_duplicates("case_id")
    found = ends.reset_index().merge(names, on="case_id")
    arm = found["strategy"] + "/" + found["variant"]
    return found.assign(arm=arm, seconds=found["end_s"] - found["begin_s"])


def _shown(served: pd.DataFrame, *, every_variant: bool) -> pd.DataFrame:
    """One row per arm, all of the request that most arms served; of several the most usual one."""
    usual = served["arm"].map(served.groupby("arm")["seconds"].median())
    served = served.assign(usual=usual, off=abs(np.log(served["seconds"] / usual)))
    requests = served.groupby("request_id", sort=False).agg(
        arms=("arm", "nunique"), off=("off", "mean")
    )
    chosen = requests[requests["arms"] == requests["arms"].max()]["off"].idxmin()
    own = served[served["request_id"] == chosen].sort_values("seconds")
    middle = [group.iloc[(len(group) - 1) // 2] for _, group in own.groupby("arm", sort=False)]
    ranked = pd.DataFrame(middle).sort_values("usual")
    return ranked if every_variant else ranked.drop_duplicates("strategy")


def _draw_arm(ax: Axes, y: float, spans: pd.DataFrame, reach_s: float) -> None:
    tenants = [tenant for tenant in gantt.TENANTS if (spans["role"] == tenant).any()]
    for lane, tenant in enumerate(tenants):
        middle = y + (lane - (len(tenants) - 1) / 2) * LANE
        own = spans[spans["role"] == tenant]
        gantt.draw_lane(ax, middle, tenant, own, reach_s=reach_s, height=LANE * 0.92)
    if y > 0:
        ax.axhline(y - 0.5, color="#cccccc", linewidth=0.8)


def _finding(spans: pd.DataFrame, seconds: dict[str, float]) -> str:
    fastest, slowest = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    words = f"One request takes {format_seconds(seconds[fastest])} under {fastest}"
    if fastest == slowest:
        return words
    words += f", {format_seconds(seconds[slowest])} under {slowest}"
    shares = {
        arm: gantt.working_s(spans[spans["arm"] == arm])["both"] / seconds[arm] for arm in seconds
    }
    most = max(shares, key=shares.__getitem__)
    if round(shares[most] * 100) < 1:
        return f"{words}; both tenants are never at work at once"
    return f"{words}; both tenants work at once most under {most}, {labels.percent(shares[most])}"
