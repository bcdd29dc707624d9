"""What a server endures, as JSON on stdout: `python -m benchmarks.endurance [--minutes 10]`.

A real `hybridlab serve` on the pocket pair and this machine's CPU, over loopback: the rate that it
holds (its knee), a soak at that rate, a burst at ten times it, slow and vanishing clients, hostile
uploads, SIGKILL to each worker and SIGTERM to the server, all under load. Every text is compared
with that of the tenants alone. The load comes from this process, which shares the server's cores:
rates are those of both together, not of the server by itself. No other work should run.

The exit code is 1 if any request was lost or answered wrongly, if memory grew in the soak, or if
the server did not come back from any of this; stderr says which.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any

import httpx

from benchmarks.endurance.deaths import NEEDS, kill, terminate
from benchmarks.endurance.load import MAX_TOKENS, QUESTION, TIMEOUT_S, Ask, Load, asks_of
from benchmarks.endurance.rates import burst, find_knee, soak
from benchmarks.endurance.server import Running, started
from benchmarks.endurance.strangers import SLOW, VANISHING, beside, hostile
from benchmarks.endurance.verdict import failures
from hybridlab.audio import load_clips
from hybridlab.device import CpuDevice
from hybridlab.records import machine, versions
from hybridlab.tenants import TenantSpec, make_analyst, make_transcriber

SHORT_S = 8.0
SEED = 0


def expected_asks() -> list[Ask]:
    """Requests of every kind over the short clips, with the texts of the tenants alone."""
    spec, device = {"weights": "pocket", "dtype": "float32"}, CpuDevice()
    ear = make_transcriber(TenantSpec(model="pocket-m", backend="openai-whisper", **spec), device)
    mind = make_analyst(TenantSpec(model="pocket", backend="transformers", **spec), device)
    ear.load()
    mind.load()
    asks = []
    for clip in load_clips():
        if clip.audio_s > SHORT_S:
            continue
        samples = clip.samples()
        heard = ear.transcribe([samples])[0].text
        said = mind.answer([samples], [QUESTION], max_new_tokens=MAX_TOKENS)[0].text
        asks += asks_of(clip, heard, said)
    ear.unload()
    mind.unload()
    return asks


async def endure(server: Running, asks: list[Ask], minutes: float) -> dict[str, Any]:
    """One hardship after the other; `part_s` is how long the short ones take each."""
    part_s = min(15.0, 20 * minutes)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_S, limits=limits) as client:
        load = Load(client, asks, SEED)
        knee = await find_knee(load, step_s=part_s / 2)
        rate_rps = knee["knee_rps"]
        told("knee", knee)
        at_knee = await soak(server, load, rate_rps=rate_rps, seconds=60 * minutes)
        told("soak", at_knee)
        far_above = await burst(load, knee_rps=rate_rps, usual_s=at_knee["latency"]["p95_s"])
        told("burst", far_above)
        found = {"knee": knee, "soak": at_knee, "burst": far_above}
        often = {"rate_rps": rate_rps, "seconds": part_s}
        for name, strangers in (("slow", SLOW), ("vanishing", VANISHING)):
            found[name] = await beside(server, load, strangers, **often)
            told(name, found[name])
        found["hostile"] = await hostile(server, load, **often)
        told("hostile", found["hostile"])
        for worker in NEEDS:
            found[f"kill {worker}"] = await kill(server, load, worker, **often)
            told(f"kill {worker}", found[f"kill {worker}"])
        found["restarts"] = await asyncio.to_thread(server.metrics, "hybridlab_restarts_total")
        found["statuses"] = await asyncio.to_thread(server.metrics, "hybridlab_requests_total")
        found["sigterm"] = await terminate(server, load, rate_rps=rate_rps)
        told("sigterm", found["sigterm"])
    return found


def told(name: str, found: dict[str, Any]) -> None:
    """One line on stderr: how far it is."""
    counts = {fate: found[fate] for fate in ("right", "refused", "wrong", "lost")}
    print(f"{time.strftime('%X')} {name}: {counts}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    minutes = parser.parse_args().minutes
    if minutes <= 0:
        parser.error("--minutes must be above zero")
    asks = expected_asks()
    with started() as server:
        found = asyncio.run(endure(server, asks, minutes))
    found = {
        "machine": machine(),
        "versions": versions(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "load_shares_the_cores": True,
        "kinds": sorted({ask.kind for ask in asks}),
        **found,
    }
    failed = failures(found)
    print(json.dumps({**found, "failures": failed}, indent=2))
    for line in failed:
        print(line, file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
