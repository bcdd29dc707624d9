"""Lanes: one row per tenant, its phases as coloured and hatched bands over time."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from hybridlab.plots import style

TENANTS = ("voxtral", "whisper")
#: Of each phase: how strong the tenant's colour is, and the hatch.
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
}
#: Neighbouring bands of one phase this close together, as a share of the axis, are drawn as one.
MERGE_SHARE = 0.002


def draw_lanes(ax: Axes, spans: pd.DataFrame) -> None:
    """Bands of every tenant that has spans; says so where there are none."""
    tenants = [name for name in TENANTS if len(spans) and (spans["tenant"] == name).any()]
    ax.grid(visible=False, axis="y")
    if not tenants:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no phases recorded", transform=ax.transAxes, ha="center", va="center")
        return
    reach = float(spans["end_s"].max() - spans["start_s"].min())
    for lane, tenant in enumerate(tenants):
        own = spans[spans["tenant"] == tenant].sort_values("start_s")
        for phase, bands in merged_bands(own, gap_s=MERGE_SHARE * reach).items():
            strength, hatch = PHASE_LOOK.get(phase, (0.6, "++"))
            ax.broken_barh(
                bands,
                (lane - 0.38, 0.76),
                facecolor=(style.OWNER_COLOURS[tenant], strength),
                edgecolor=style.OWNER_COLOURS[tenant],
                linewidth=0.4,
                hatch=hatch,
                zorder=3,
            )
    ax.set_yticks(range(len(tenants)), [name.capitalize() for name in tenants])
    ax.set_ylim(len(tenants) - 0.4, -0.6)


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
        Patch(facecolor=("#555555", strength), edgecolor="#555555", hatch=hatch, label=phase)
        for phase, (strength, hatch) in PHASE_LOOK.items()
        if phase in seen
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
    return f", during {str(inner['tenant']).capitalize()}'s {inner['phase']}"
