"""Lanes: one row per tenant, its phases as coloured and hatched bands over time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hybridlab.reporting import labels
from hybridlab.reporting.palette import MUTED, OWNER_COLOURS, tint

TENANTS = ("llm", "asr")
#: Of each phase, in the order of a request: how strong the tenant's colour is, and the hatch.
PHASE_LOOK = {
    "disk": (0.3, "\\\\\\"),
    "load": (0.45, "xxx"),
    "host": (0.3, "xxx"),
    "pin": (0.3, "***"),
    "allocate": (0.3, "ooo"),
    "copy-in": (0.6, "|||"),
    "copy-out": (0.45, "+++"),
    "prepare": (0.2, ""),
    "encode": (1.0, ""),
    "prefill": (0.75, "///"),
    "decode": (0.5, "..."),
    "release": (0.25, "---"),
    "lost": (0.12, "ooo"),
    "restart": (0.45, "|||"),
    "wait": (0.08, ""),
    "http": (0.2, "|||"),
    "gateway": (0.45, "ooo"),
    "work": (0.75, ""),
}
#: Phases of a request in which its tenant does not work on it.
ELSEWHERE = ("wait", "http", "gateway")
#: Neighbouring bands of one phase this close together, as a share of the axis, are drawn as one.
MERGE_SHARE = 0.002
COLUMNS = ("case_id", "request_id", "role", "phase", "start_s", "end_s")


def draw_lanes(ax: Axes, spans: pd.DataFrame) -> None:
    """Bands of every tenant that has spans; says so where there are none."""
    tenants = [name for name in TENANTS if len(spans) and (spans["role"] == name).any()]
    ax.grid(visible=False, axis="y")
    if not tenants:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no phases recorded", transform=ax.transAxes, ha="center", va="center")
        return
    reach_s = float(spans["end_s"].max() - spans["start_s"].min())
    for lane, tenant in enumerate(tenants):
        draw_lane(ax, lane, tenant, spans[spans["role"] == tenant], reach_s=reach_s, height=0.76)
    ax.set_yticks(range(len(tenants)), [labels.role_name(name) for name in tenants])
    ax.set_ylim(len(tenants) - 0.4, -0.6)


def draw_lane(
    ax: Axes, y: float, tenant: str, spans: pd.DataFrame, *, reach_s: float, height: float
) -> None:
    """The bands of one tenant's spans around `y`, on an axis of `reach_s` seconds."""
    bands = merged_bands(spans.sort_values("start_s"), gap_s=MERGE_SHARE * reach_s)
    for phase, places in bands.items():
        strength, hatch = PHASE_LOOK.get(phase, (0.6, "++"))
        ax.broken_barh(
            places,
            (y - height / 2, height),
            facecolor=tint(OWNER_COLOURS[tenant], strength),
            edgecolor=OWNER_COLOURS[tenant],
            linewidth=0.4,
            hatch=hatch,
            zorder=3,
        )


def merged_bands(spans: pd.DataFrame, *, gap_s: float) -> dict[str, list[tuple[float, float]]]:
    """(start, width) in seconds per phase; bands nearer than `gap_s` to the one before join it."""
    bands: dict[str, list[tuple[float, float]]] = {}
    for phase, start, end in zip(spans["phase"], spans["start_s"], spans["end_s"], strict=True):
        known = bands.setdefault(str(phase), [])
        if known and start - sum(known[-1]) <= gap_s:
            known[-1] = (known[-1][0], max(end, sum(known[-1])) - known[-1][0])
        else:
            known.append((float(start), float(end - start)))
    return bands


def phase_handles(spans: pd.DataFrame) -> list[Patch]:
    """Legend entries of the phases that occur, in grey: the lane's colour is the tenant's."""
    seen = set(spans["phase"]) if len(spans) else set()
    return [
        Patch(facecolor=tint(MUTED, strength), edgecolor=MUTED, hatch=hatch, label=phase)
        for phase, (strength, hatch) in PHASE_LOOK.items()
        if phase in seen
    ]


def tenant_handles(spans: pd.DataFrame) -> list[Patch]:
    """Legend entries of the tenants that worked."""
    return [
        Patch(facecolor=OWNER_COLOURS[tenant], label=labels.role_name(tenant))
        for tenant in TENANTS
        if (spans["role"] == tenant).any()
    ]


def phase_at(spans: pd.DataFrame, t_s: float) -> str:
    """', during voxtral prefill' where a phase covers this moment, else ''."""
    if spans.empty:
        return ""
    around = spans[(spans["start_s"] <= t_s) & (spans["end_s"] >= t_s)]
    around = around[around["phase"] != "wait"]
    if around.empty:
        return ""
    inner = around.iloc[int((around["end_s"] - around["start_s"]).to_numpy().argmin())]
    return f", during {labels.role_name(str(inner['role']))}'s {inner['phase']}"


def working_s(spans: pd.DataFrame) -> dict[str, float]:
    """Seconds in which each tenant worked, and under `both` those in which they did at once."""
    working = spans[~spans["phase"].isin(ELSEWHERE)]
    lengths = {str(tenant): _covered_s(own) for tenant, own in working.groupby("role")}
    return {**lengths, "both": sum(lengths.values()) - _covered_s(working)}


def _covered_s(spans: pd.DataFrame) -> float:
    """Seconds that lie in at least one of the spans."""
    ranked = spans[["start_s", "end_s"]].astype(float).sort_values("start_s")
    before = ranked["end_s"].cummax().shift(fill_value=-math.inf)
    fresh = ranked["end_s"] - np.maximum(ranked["start_s"], before)
    return float(fresh.clip(lower=0).sum())
