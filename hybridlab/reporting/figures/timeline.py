"""Figures over time (s): a lane for each model with its phases, alone under a curve of memory
(GiB), and side by side for one request under every arm."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hybridlab.analysis.arms import numbers
from hybridlab.reporting import labels
from hybridlab.reporting.figures import elements, theme
from hybridlab.reporting.findings import pooled_words
from hybridlab.reporting.palette import MUTED, OWNER_COLOURS, PHASE_LOOK, tint
from hybridlab.reporting.rows import RACE, merged_bands, strategies_first
from hybridlab.units import GIB, counted, format_bytes, format_seconds

ROLES = ("llm", "asr")
#: Phases of a request in which its model does not work on it.
ELSEWHERE = ("wait", "http", "gateway")
#: Neighbouring bands of one phase this close together, as a share of the axis, are drawn as one.
MERGE_SHARE = 0.002
#: Height of one model's lane; an arm's lanes fill a row of height 1.
LANE = 0.4

# ----------------------------------------------------------------------------------------- lanes


def draw_lane(
    ax: Axes, y: float, role: str, spans: pd.DataFrame, *, reach_s: float, height: float
) -> None:
    """The bands of one model's spans around `y`, on an axis of `reach_s` seconds."""
    bands = merged_bands(spans.sort_values("start_s"), gap_s=MERGE_SHARE * reach_s)
    for phase, places in bands.items():
        strength, hatch = PHASE_LOOK.get(phase, (0.6, "++"))
        ax.broken_barh(
            places,
            (y - height / 2, height),
            facecolor=tint(OWNER_COLOURS[role], strength),
            edgecolor=OWNER_COLOURS[role],
            linewidth=0.4,
            hatch=hatch,
            zorder=3,
        )


def _roles(spans: pd.DataFrame) -> list[str]:
    """The models that have spans, from the top lane down."""
    return [role for role in ROLES if (spans["role"] == role).any()]


def _phase_handles(spans: pd.DataFrame) -> list[Patch]:
    """Legend entries of the phases that occur, in grey: the lane's colour is the model's."""
    seen = set(spans["phase"])
    return [
        Patch(facecolor=tint(MUTED, strength), edgecolor=MUTED, hatch=hatch, label=phase)
        for phase, (strength, hatch) in PHASE_LOOK.items()
        if phase in seen
    ]


# ------------------------------------------------------------------------------ memory over time


@theme.styled(timed=True)
def memory_over_time(
    samples: pd.DataFrame,
    spans: pd.DataFrame,
    cases: pd.DataFrame | None = None,
    *,
    case_id: str,
) -> Figure:
    """The sampled curve of one case, under the capacity that `cases` knows, above a lane of each
    model's phases."""
    own = samples[(samples["case_id"] == case_id) & (samples["source"] != "after-cycle")]
    own = own.assign(bytes=numbers(own, "bytes"), t_s=numbers(own, "t_s"))
    own = own[own["bytes"].notna() & own["t_s"].notna()].sort_values("t_s")
    if own.empty:
        return theme.nothing_to_show(f"No memory was sampled for the case {case_id}.")
    figure = theme.new_figure(5.6)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1.25))
    peak = own.iloc[int(own["bytes"].to_numpy().argmax())]
    _draw_curve(top, own["t_s"], own["bytes"] / GIB, peak)
    if cases is not None:
        capacity = numbers(cases[cases["case_id"] == case_id], "capacity_bytes").dropna()
        elements.draw_capacity(top, capacity, peak["bytes"], vertical=False)
    mine = spans[(spans["case_id"] == case_id) & spans["start_s"].notna() & spans["end_s"].notna()]
    _draw_lanes(below, mine)
    below.set_xlabel("time since the case began (s)")
    elements.legend_below(top, handles=_phase_handles(mine), columns=7)
    title = f"Memory peaks at {format_bytes(peak['bytes'])} after {format_seconds(peak['t_s'])}"
    return theme.captioned(
        figure,
        title + phase_at(mine, float(peak["t_s"])),
        own,
        cases,
        n=f"{counted(len(own), 'reading')} of {own['source'].iloc[0]}, thinned",
        interval="no interval: one case",
        notes=(case_id, "triangle: the peak"),
        sampled=True,
    )


def _draw_curve(
    ax: Axes, t_s: pd.Series[float], used_gib: pd.Series[float], peak: pd.Series[float]
) -> None:
    ax.plot(t_s, used_gib, color="#222222", linewidth=1.6)
    ax.fill_between(t_s, used_gib, color="#222222", alpha=0.07)
    highest = peak["bytes"] / GIB
    ax.plot(peak["t_s"], highest, "v", color=OWNER_COLOURS["request"], markersize=10)
    ax.set_ylim(0, (highest or 1.0) * 1.16)
    ax.set_ylabel("memory in use (GiB)")


def _draw_lanes(ax: Axes, spans: pd.DataFrame) -> None:
    roles = _roles(spans)
    ax.grid(visible=False, axis="y")
    ax.set_yticks(range(len(roles)), [labels.role_name(role) for role in roles])
    if not roles:
        ax.text(0.5, 0.5, "no phases recorded", transform=ax.transAxes, ha="center", va="center")
        return
    reach_s = float(spans["end_s"].max() - spans["start_s"].min())
    for lane, role in enumerate(roles):
        draw_lane(ax, lane, role, spans[spans["role"] == role], reach_s=reach_s, height=0.76)
    ax.set_ylim(len(roles) - 0.4, -0.6)


def phase_at(spans: pd.DataFrame, t_s: float) -> str:
    """ ", during Voxtral's prefill" where a phase covers this moment, else ''."""
    around = spans[(spans["start_s"] <= t_s) & (spans["end_s"] >= t_s) & (spans["phase"] != "wait")]
    if around.empty:
        return ""
    inner = around.iloc[int((around["end_s"] - around["start_s"]).to_numpy().argmin())]
    return f", during {labels.role_name(str(inner['role']))}'s {inner['phase']}"


# ---------------------------------------------------------------------------- one request per arm


@theme.styled(timed=True)
def request_lanes(
    spans: pd.DataFrame, cases: pd.DataFrame, *, every_variant: bool = False
) -> Figure:
    """When each model worked on one request, from the request's first phase to its last.

    The request is the first that most arms served; of an arm's rounds the one of median length is
    drawn. Of each strategy only the variant with the shortest requests is shown, unless
    `every_variant`.
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
    elements.name_rows(ax, arms)
    elements.note_column(ax, [(y, format_seconds(seconds[arm])) for y, arm in enumerate(arms)])
    ax.set_xlim(0, max(seconds.values()) * 1.01)
    ax.set_xlabel("time since the request's first phase began (s)")
    models = [Patch(facecolor=OWNER_COLOURS[r], label=labels.role_name(r)) for r in _roles(own)]
    elements.legend_below(ax, handles=[*models, *_phase_handles(own)], columns=7)
    return theme.captioned(
        figure,
        _finding(own, seconds),
        shown,
        cases,
        n=f"1 request ({shown['request_id'].iloc[0]}) in {counted(len(arms), 'arm')}",
        interval="no interval: of an arm's rounds the one of median length",
        notes=(
            "upper lane: Voxtral, lower lane: Whisper; one lane: the only model",
            "" if every_variant else "of each strategy the variant whose requests are shortest",
            pooled_words(own),
        ),
    )


def _served(spans: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """One row per race case and request: `case_id, request_id, strategy, arm, begin_s, seconds`."""
    race = spans[(spans["experiment"] == RACE) & (spans["end_s"] > spans["start_s"])]
    race = race[~race["request_id"].fillna("-first").str.endswith("-first")]
    ends = race.groupby(["case_id", "request_id"], sort=False).agg(
        begin_s=("start_s", "min"), end_s=("end_s", "max")
    )
    names = cases[["case_id", "strategy", "variant"]].drop_duplicates("case_id")
    found = ends.reset_index().merge(names, on="case_id")
    arm = found["strategy"] + "/" + found["variant"]
    return found.assign(arm=arm, seconds=found["end_s"] - found["begin_s"])


def _shown(served: pd.DataFrame, *, every_variant: bool) -> pd.DataFrame:
    """One row per arm, all of the request that most arms served, each the median of its rounds."""
    usual = served.groupby("arm")["seconds"].median()
    request = served.groupby("request_id", sort=False)["arm"].nunique().idxmax()
    own = served[served["request_id"] == request].sort_values("seconds")
    middle = [group.iloc[(len(group) - 1) // 2] for _, group in own.groupby("arm", sort=False)]
    ranked = pd.DataFrame(middle).sort_values("arm", key=lambda arms: arms.map(usual))
    return ranked if every_variant else ranked.drop_duplicates("strategy")


def _draw_arm(ax: Axes, y: float, spans: pd.DataFrame, reach_s: float) -> None:
    roles = _roles(spans)
    for lane, role in enumerate(roles):
        middle = y + (lane - (len(roles) - 1) / 2) * LANE
        own = spans[spans["role"] == role]
        draw_lane(ax, middle, role, own, reach_s=reach_s, height=LANE * 0.92)
    if y > 0:
        ax.axhline(y - 0.5, color="#cccccc", linewidth=0.8)


def _finding(spans: pd.DataFrame, seconds: dict[str, float]) -> str:
    fastest, slowest = min(seconds, key=seconds.__getitem__), max(seconds, key=seconds.__getitem__)
    words = f"One request takes {format_seconds(seconds[fastest])} under {fastest}"
    if slowest == fastest:
        return words
    words += f", {format_seconds(seconds[slowest])} under {slowest}"
    shares = {arm: working_s(spans[spans["arm"] == arm])["both"] / seconds[arm] for arm in seconds}
    most = max(shares, key=shares.__getitem__)
    if round(shares[most] * 100) < 1:
        return f"{words}; both models are never at work at once"
    return f"{words}; both models work at once most under {most}, {labels.percent(shares[most])}"


def working_s(spans: pd.DataFrame) -> dict[str, float]:
    """Seconds in which each model worked, and under `both` those in which they did at once."""
    working = spans[~spans["phase"].isin(ELSEWHERE)]
    lengths = {str(role): _covered_s(own) for role, own in working.groupby("role")}
    return {**lengths, "both": sum(lengths.values()) - _covered_s(working)}


def _covered_s(spans: pd.DataFrame) -> float:
    """Seconds that lie in at least one of the spans."""
    ranked = spans[["start_s", "end_s"]].astype(float).sort_values("start_s")
    before = ranked["end_s"].cummax().shift(fill_value=-math.inf)
    fresh = ranked["end_s"] - np.maximum(ranked["start_s"], before)
    return float(fresh.clip(lower=0).sum())
