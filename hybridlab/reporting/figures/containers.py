"""Figures of tenants in servers, beside those in one process: where a request's time goes (ms), and
what the servers hold (GiB)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hybridlab.reporting.figures import marks, style, wording
from hybridlab.reporting.figures.captions import caption
from hybridlab.reporting.figures.memory import case_stack
from hybridlab.reporting.figures.palette import HTTP_LOOK
from hybridlab.reporting.tables import Held, container_cases, held_by_servers
from hybridlab.units import format_bytes, format_seconds

#: Parts of a request by the column of `trials` that has them in seconds, the work first, as it is
#: what an arm in one process has too.
PARTS = {
    "work": "server_work_s",
    "wait": "queue_wait_s",
    "gateway": "gateway_s",
    "http": "http_overhead_s",
}
PART_WORDS = {
    "work": "the tenants' work",
    "wait": "wait in the server's queue",
    "gateway": "gateway",
    "http": "HTTP",
}
NONE = "No arm of a race was asked over HTTP. Name one in parallel_variants to see"


@style.styled(
    trials=("case_id", "latency_s", "first"),
    cases=("case_id", "experiment", "strategy", "variant", "status"),
)
def containers_time(trials: pd.DataFrame, cases: pd.DataFrame) -> Figure:
    """Horizontal bars, one per arm of the parallel strategy: medians of a request's parts for the
    tenant that was last, stacked; for an arm in one process its median latency."""
    rows = _parts(trials, cases)
    if not (rows.get("http", pd.Series(dtype=float)) > 0).any():
        return style.nothing_to_show(f"{NONE} where a request's time goes.")
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    left = np.zeros(len(rows))
    for part, (colour, hatch) in HTTP_LOOK.items():
        width = rows[part].to_numpy() * 1e3
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        ax.barh(range(len(rows)), width, left=left, height=0.62, linewidth=0.6, zorder=3, **look)
        left += width
    names = [f"{arm}\n(n = {n})" for arm, n in zip(rows.index, rows["n"], strict=True)]
    best = int(rows["latency_s"].to_numpy().argmin())
    marks.name_rows(ax, names, best=best)
    ax.set_xlim(left=0)
    ax.set_xlabel("median of each part of a request (ms)")
    notes = [format_seconds(seconds) for seconds in rows["latency_s"]]
    marks.note_column(ax, enumerate(notes))
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=PART_WORDS[part])
        for part, (colour, hatch) in HTTP_LOOK.items()
        if (rows[part] > 0).any()
    ]
    marks.legend_below(ax, handles=handles, columns=4)
    own = cases[cases["case_id"].isin(_parallel(cases)["case_id"])]
    words = caption(
        own,
        cases,
        n=f"{wording.counted(int(rows['n'].sum()), 'request')}, first requests left out",
        interval="no interval: medians of parts; right: median latency",
        notes=("parts are those of the tenant that was last", "over HTTP on loopback"),
    )
    return style.finish(figure, _time_finding(rows), words)


def _parallel(cases: pd.DataFrame) -> pd.DataFrame:
    raced = (cases["experiment"] == "race") & (cases["strategy"] == "parallel")
    return cases[raced & (cases["status"] == "ok")]


def _parts(trials: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Seconds by variant: the medians of the parts, `latency_s` and `n`, arms in servers last."""
    own = _parallel(cases)[["case_id", "strategy", "variant"]]
    served = trials[~trials["first"].fillna(False).astype(bool)]
    served = served.drop(columns=["strategy", "variant"], errors="ignore").merge(own, on="case_id")
    rows = {}
    for variant, group in served.groupby("variant", sort=False):
        parts = {part: wording.numbers(group, column).median() for part, column in PARTS.items()}
        latency_s = float(wording.numbers(group, "latency_s").median())
        if np.isnan(parts["http"]):
            parts["work"] = latency_s
        rows[str(variant)] = {**parts, "latency_s": latency_s, "n": len(group)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    if table.empty:
        return table
    table = table.fillna(0.0).astype({"n": int})
    return table.sort_values("http", key=lambda http: http > 0, kind="stable")


def _time_finding(rows: pd.DataFrame) -> str:
    """'HTTP adds 3.1 ms to a request of single-container (2.0 %), HTTP and gateway add 5 ms …'."""
    said: list[str] = []
    for variant, row in rows[rows["http"] > 0].iterrows():
        seconds = row["http"] + row["gateway"]
        what = "HTTP and gateway add" if row["gateway"] > 0 else "HTTP adds"
        share = wording.percent(seconds / row["latency_s"])
        whose = f"one of {variant}" if said else f"a request of {variant}"
        said.append(f"{what} {format_seconds(seconds)} to {whose} ({share})")
    return ", ".join(said)


@style.styled(cases=("case_id", "experiment", "strategy", "variant", "status", "device"))
def containers_memory(cases: pd.DataFrame) -> Figure:
    """Bytes of each arm of the parallel strategy at its peak while serving, by owner, with what is
    a server's, a second one's and a gateway's; on a GPU a server's are its contexts."""
    held = held_by_servers(cases)
    if not held:
        return style.nothing_to_show(f"{NONE} what servers hold.")
    rows = wording.worst_per_label(_parallel(cases))
    rows = rows.sort_values("variant", key=lambda names: names.isin(list(held)), kind="stable")
    names = [wording.text_of(row, "variant") for _, row in rows.iterrows()]
    peaks = [case_stack(row, "request_peak") for _, row in rows.iterrows()]
    stacks = [
        _with_servers(stack, held.get(name)) for stack, name in zip(peaks, names, strict=True)
    ]
    figure, ax = style.new_axes(style.rows_height(len(rows)))
    marks.draw_stacks(ax, stacks)
    marks.name_rows(ax, names)
    notes = [format_bytes(sum(stack.values())) if stack else "" for stack in stacks]
    marks.note_column(ax, enumerate(notes))
    ax.set_xlabel("memory, request peak (GiB)")
    marks.legend_below(ax, handles=marks.owner_handles(stacks), columns=5)
    words = caption(
        rows,
        cases,
        n=wording.counted(len(rows), "arm"),
        interval="no interval: the highest case of each arm",
        notes=(_server_words(rows),),
        sampled=True,
    )
    return style.finish(figure, _memory_finding(cases), words)


def _with_servers(stack: dict[str, float], held: Held | None) -> dict[str, float]:
    """What servers hold, the second one's told apart; it is a part of the stack on a host, and on
    top of it on a GPU, where the stack has the allocators' bytes alone."""
    if held is None:
        return stack
    servers = stack.get("server", held.servers or 0.0)
    second = min(held.second or 0.0, servers)
    first = servers - second
    told: dict[str, float] = {}
    for owner, n_bytes in stack.items():
        told[owner] = n_bytes
        if owner == "whisper":
            told |= {"server": first, "second server": second}
    return {**told, "server": first} if told else told


def _server_words(rows: pd.DataFrame) -> str:
    if (rows["device"] == "cpu").all():
        return "server: interpreters, libraries and decoders, each page counted once"
    return "server: its CUDA contexts, which NVML has in use more than the allocators have reserved"


def _memory_finding(cases: pd.DataFrame) -> str:
    """'One server holds 515 MiB beside 32 MiB of weights, a second one 428 MiB more …'."""
    known = list(held_by_servers(cases).values())
    first = next((held.first for held in known if held.first is not None), None)
    if first is None:
        reasons = wording.present(container_cases(cases), "server_overhead_reason")
        return (
            f"What servers hold is not known: {reasons.iloc[0] if len(reasons) else 'no reading'}"
        )
    own = container_cases(cases).iloc[0]
    weights = sum(wording.number_of(own, f"{name}_bytes") for name in ("voxtral", "whisper"))
    count = "One server holds" if own["servers"] == 1 else f"{int(own['servers'])} servers hold"
    text = f"{count} {format_bytes(first)} beside {format_bytes(weights)} of weights"
    second = next((held.second for held in known if held.second is not None), None)
    if second is not None:
        text += f", a second one {format_bytes(second)} more"
    gateway = next((held.gateway for held in known if held.gateway), None)
    return text + (f", a gateway {format_bytes(gateway)}" if gateway else "")
