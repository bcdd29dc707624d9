"""Workers that are killed under load, and the server's own end under load."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import httpx

from benchmarks.endurance.load import TIMEOUT_S, Load, latencies, send, tally
from benchmarks.endurance.server import Running

#: Kinds of request that need a worker to be answered.
NEEDS = {
    "whisper": ("transcription", "hybrid", "hybrid-stream"),
    "voxtral": ("chat", "chat-stream", "hybrid", "hybrid-stream"),
    "decoder": ("transcription", "chat", "chat-stream", "hybrid", "hybrid-stream"),
}


async def kill(
    server: Running, load: Load, worker: str, *, rate_rps: float, seconds: float
) -> dict[str, Any]:
    """SIGKILL to a worker in the middle of this load."""
    pid = server.processes()[worker]
    others = {name: p for name, p in server.processes().items() if name != worker}
    loading = asyncio.create_task(load.at(rate_rps, seconds))
    await asyncio.sleep(seconds / 4)
    os.kill(pid, signal.SIGKILL)
    killed_s = time.monotonic()
    outcomes = await loading
    under_way = [o for o in outcomes if o.sent_s < killed_s < o.done_s]
    again_s = [
        outcome.done_s - killed_s
        for outcome in outcomes
        if outcome.sent_s > killed_s and outcome.kind in NEEDS[worker] and outcome.fate == "right"
    ]
    now = server.processes()
    return {
        **tally(outcomes),
        "under_way": tally(under_way),
        "answers_again_s": min(again_s, default=None),
        "latency": latencies(outcomes),
        "replaced": worker in now and now[worker] != pid,
        "others_untouched": others == {name: p for name, p in now.items() if name != worker},
    }


async def terminate(server: Running, load: Load, *, rate_rps: float) -> dict[str, Any]:
    """SIGTERM in the middle of a load whose requests have a connection each, so that no client can
    send into one that is just being closed. Whoever finds the door closed was not accepted."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_S, limits=limits) as client:
        tasks = []
        told_s = time.monotonic() + 2
        told = False
        while server.process.poll() is None and time.monotonic() < told_s + TIMEOUT_S:
            tasks.append(asyncio.create_task(send(client, load.next())))
            await asyncio.sleep(1 / rate_rps)
            if not told and time.monotonic() >= told_s:
                server.process.send_signal(signal.SIGTERM)
                told, told_s = True, time.monotonic()
        outcomes = await asyncio.gather(*tasks)
    code = await asyncio.to_thread(server.ended)
    ended_s = time.monotonic() - told_s
    closed = [o for o in outcomes if o.why == "ConnectError" and o.sent_s > told_s]
    met = [outcome for outcome in outcomes if outcome not in closed]
    return {
        **tally(met),
        "under_way": tally(o for o in met if o.sent_s < told_s < o.done_s),
        "found_the_door_closed": len(closed),
        "exit_code": code,
        "ended_after_s": ended_s,
        "tracebacks": sum("Traceback" in line for line in server.lines),
    }
