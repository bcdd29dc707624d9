"""How much load the server holds: the knee, a soak at it, a burst far above it."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd

from benchmarks.endurance.load import KINDS, Load, Outcome, latencies, send, tally
from benchmarks.endurance.server import Running
from benchmarks.endurance.watch import Watch
from hybridlab.analysis.queueing import KNEE_RATIO, knees
from hybridlab.devices import procfs

#: Rates that are offered, as shares of what clients get that never pause.
LOADS = (0.2, 0.4, 0.6, 0.75, 0.9)
#: On average at each of them: a p95 of fewer would be any of them.
RATE_REQUESTS = 30
CLIENTS = 16
BURST = 10
#: More than all queues of the server hold.
BURST_REQUESTS = 500
#: So many probes in a row as quick as they were in the soak: the burst is over.
PROBES = 5
RECOVERY_S = 120.0


async def find_knee(server: Running, load: Load, *, step_s: float) -> dict[str, Any]:
    """The knee as the lab defines it: the highest rate, of those tried without a gap from the
    lowest, at which p95 is within `KNEE_RATIO` times that at the lowest."""
    await load.closed(CLIENTS, step_s / 2)  # what the first requests build
    began = time.monotonic()
    capacity_rps = len(await load.closed(CLIENTS, step_s)) / (time.monotonic() - began)
    rates, outcomes = [], []
    for share in LOADS:
        found = await load.at(share * capacity_rps, RATE_REQUESTS / (share * capacity_rps))
        outcomes += found
        rates.append({"load": share, "rate_rps": share * capacity_rps, **latencies(found)})
    points = pd.DataFrame(rates).assign(arm="server")
    return {
        "capacity_rps": capacity_rps,
        "rates": rates,
        "knee_rps": knees(points)["server"],
        **tally(outcomes),
    }


async def soak(server: Running, load: Load, *, rate_rps: float, seconds: float) -> dict[str, Any]:
    """The knee rate for long. Latency at the beginning and at the end, and what grew meanwhile."""
    watch, began_s = Watch(server), time.monotonic()
    used_s = _cpu_s(server)
    async with watch.on():
        outcomes = await load.at(rate_rps, seconds)
    busy_s = _cpu_s(server) - used_s
    first, last = _fifths(outcomes, began_s, seconds)
    return {
        "rate_rps": rate_rps,
        "seconds": seconds,
        **tally(outcomes),
        "latency": latencies(outcomes),
        "first_fifth": latencies(first),
        "last_fifth": latencies(last),
        "by_kind": {kind: latencies(o for o in outcomes if o.kind == kind) for kind in KINDS},
        "server_cores": busy_s / (time.monotonic() - began_s),
        "readings": len(watch.readings),
        "held": watch.trends(),
    }


def _cpu_s(server: Running) -> float:
    return sum(procfs.cpu_seconds(pid) or 0.0 for pid in server.processes().values())


def _fifths(
    outcomes: list[Outcome], began_s: float, seconds: float
) -> tuple[list[Outcome], list[Outcome]]:
    fifth = seconds / 5
    first = [o for o in outcomes if o.due_s < began_s + fifth]
    return first, [o for o in outcomes if o.due_s >= began_s + 4 * fifth]


async def burst(server: Running, load: Load, *, knee_rps: float, usual_s: float) -> dict[str, Any]:
    """Far above the knee, then one request after the other until they take no longer than `usual_s`
    times `KNEE_RATIO`, which is what the knee allows."""
    seconds = BURST_REQUESTS / (BURST * knee_rps)
    outcomes = await load.at(BURST * knee_rps, seconds)
    accepted = [outcome for outcome in outcomes if outcome.fate != "refused"]
    refused_s = [outcome.latency_s for outcome in outcomes if outcome.fate == "refused"]
    over_s = time.monotonic()
    in_a_row, probes = 0, []
    while in_a_row < PROBES and time.monotonic() - over_s < RECOVERY_S:
        probes.append(await send(load.client, load.next()))
        quick = probes[-1].fate == "right" and probes[-1].latency_s <= KNEE_RATIO * usual_s
        in_a_row = in_a_row + 1 if quick else 0
    return {
        "rate_rps": BURST * knee_rps,
        "seconds": seconds,
        **tally([*outcomes, *probes]),
        "accepted": latencies(accepted),
        "refusal_most_s": max(refused_s, default=None),
        "answered_within_s": over_s - min(o.due_s for o in outcomes),
        "probes": len(probes),
        "back_to_normal": in_a_row == PROBES,
        "back_to_normal_s": time.monotonic() - over_s if in_a_row == PROBES else None,
    }
