"""What a server endures, as JSON on stdout: `python -m benchmarks.endurance [--minutes 10]`.

A real `hybridlab serve` on the pocket pair and this machine's CPU, over loopback: the rate that it
holds (its knee), a burst at ten times it, a soak at that rate, slow and vanishing clients, hostile
uploads, SIGKILL to each worker and SIGTERM to the server, all under load. Every text is compared
with that of the models alone. The load comes from this process, which shares the server's cores:
rates are those of both together, not of the server by itself. No other work should run.

The exit code is 1 if any request was lost or answered wrongly, if memory grew in the soak, or if
the server did not come back from any of this; stderr says which.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.endurance.deaths import NEEDS, kill, terminate
from benchmarks.endurance.load import MAX_TOKENS, QUESTION, Ask, Load, asks_of
from benchmarks.endurance.rates import burst, find_knee, soak
from benchmarks.endurance.server import Running, started
from benchmarks.endurance.strangers import SLOW, VANISHING, beside, hostile
from benchmarks.endurance.verdict import failures
from benchmarks.endurance.watch import at_rest
from benchmarks.report import publish
from benchmarks.serve import pocket_pair
from hybridlab.audio import load_clips

SHORT_S = 8.0
SEED = 0
#: Of the knee, what comes beside strangers and while workers die: what they cost has room.
SHARE = 0.75
#: Until closed connections are gone from the server's process.
REST_S = 1.0


def expected_asks() -> list[Ask]:
    """Requests of every kind over the short clips, with the texts of the models alone."""
    asr, llm = pocket_pair()
    asr.load()
    llm.load()
    asks = []
    for clip in load_clips():
        if clip.audio_s > SHORT_S:
            continue
        samples = clip.samples()
        heard = asr.transcribe([samples])[0].text
        said = llm.answer([samples], [QUESTION], max_new_tokens=MAX_TOKENS)[0].text
        asks += asks_of(clip, heard, said)
    asr.unload()
    llm.unload()
    return asks


async def endure(server: Running, asks: list[Ask], minutes: float) -> dict[str, Any]:
    """One hardship after the other. Beside strangers it takes longer than while a worker dies: the
    p95 of a hundred requests is to be told from that of a hundred others."""
    part_s, beside_s = min(15.0, 20 * minutes), min(45.0, 20 * minutes)
    found: dict[str, Any] = {"at_rest": {}}

    async def do(name: str, part: Callable[..., Awaitable[dict[str, Any]]], **how: Any) -> None:
        keep_alive = 0 if part is terminate else 32
        async with Load(server.url, asks, SEED + len(found), keep_alive=keep_alive) as load:
            found[name] = await part(server, load, **how)
        counts = {fate: found[name][fate] for fate in ("right", "refused", "wrong", "lost")}
        print(f"{time.strftime('%X')} {name}: {counts}", file=sys.stderr)
        if server.process.poll() is None:
            await asyncio.sleep(REST_S)
            found["at_rest"][name] = at_rest(server)

    await do("knee", find_knee, step_s=part_s / 2)
    knee_rps = found["knee"]["knee_rps"]
    usual_s = next(r["p95_s"] for r in found["knee"]["rates"] if r["rate_rps"] == knee_rps)
    # before the soak: full batches take more memory than any in it, and once they have, no rare
    # large one among the usual small ones can look like growth
    await do("burst", burst, knee_rps=knee_rps, usual_s=usual_s)
    await do("soak", soak, rate_rps=knee_rps, seconds=60 * minutes)
    often = {"rate_rps": SHARE * knee_rps, "seconds": beside_s}
    await do("slow", beside, strangers=SLOW, **often)
    await do("vanishing", beside, strangers=VANISHING, **often)
    await do("hostile", hostile, **often)
    often["seconds"] = part_s
    for worker in NEEDS:
        await do(f"kill {worker}", kill, worker=worker, **often)
    found["model_reloads"] = await asyncio.to_thread(server.metrics, "hybridlab_restarts_total")
    found["statuses"] = await asyncio.to_thread(server.metrics, "hybridlab_requests_total")
    # more than it can serve: requests wait when it is told to stop
    await do("sigterm", terminate, rate_rps=2 * found["knee"]["capacity_rps"])
    return found


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
        "cores_usable": len(os.sched_getaffinity(0)),
        "load_shares_the_cores": True,
        "kinds": sorted({ask.kind for ask in asks}),
        **found,
    }
    failed = failures(found)
    publish(**found, failures=failed)
    for line in failed:
        print(line, file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
